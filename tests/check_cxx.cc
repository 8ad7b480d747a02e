/* SPDX-License-Identifier: MIT */
/*
 * check_cxx.cc - what <bufpool.hpp> adds to <bufpool.h>
 *
 * A program by itself, which cxx.sh compiles for several standards by several
 * compilers: nothing but the header can be at fault.  Each test is a function.
 */
#include <bufpool.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pthread.h>
#if __cplusplus >= 202002L
#include <span>
#endif

#define CHECK(expr) \
	((expr) ? static_cast<void>(0) : check_failed(__LINE__, #expr))

/* The statement throws system_error with this errno. */
#define THROWS(error, statement)                                        \
	CHECK(error_of([&] { static_cast<void>(statement); }) ==        \
	      std::error_code(error, std::generic_category()))

/* It fails without a throw, and says so with this errno. */
#define REFUSED(error, expr) \
	(errno = sentinel, CHECK(!(expr)), CHECK(errno == (error)))

namespace
{

constexpr int sentinel = 4242;
constexpr std::size_t page = 4096;

[[noreturn]] void check_failed(int line, const char *expr)
{
	std::fprintf(stderr, "check_cxx.cc:%d: '%s' failed (errno %d)\n", line,
		     expr, errno);
	std::abort();
}

/* What a call throws; nothing else may come. */
template <class Exception, class F> std::optional<Exception> thrown(F f)
{
	try {
		f();
	} catch (const Exception &e) {
		return e;
	}
	return std::nullopt;
}

template <class F> std::error_code error_of(F f)
{
	auto e = thrown<std::system_error>(f);

	return e ? e->code() : std::error_code();
}

/* Of 4 KiB and 64 KiB only; BUFPOOL_FAIL unless another way is said. */
bufpool_config_t config_of(std::size_t small, std::size_t large)
{
	bufpool_config_t config = BUFPOOL_CONFIG_EMPTY;

	config.count[BUFPOOL_CLASS_4K] = small;
	config.count[BUFPOOL_CLASS_64K] = large;
	config.exhausted = BUFPOOL_FAIL;
	return config;
}

bufpool::pool make_pool(std::size_t small, std::size_t large = 0)
{
	return bufpool::pool::create(config_of(small, large));
}

std::uint64_t out(const bufpool::pool &pool)
{
	return pool.stats().checked_out;
}

bufpool::buffer text(const bufpool::pool &pool, std::string_view what)
{
	bufpool::buffer buf = pool.checkout(what.size());

	std::memcpy(buf.data(), what.data(), what.size());
	return buf;
}

/* Runs a function in a thread, until its own end. */
template <class F> class thread
{
public:
	explicit thread(F f) : run(std::move(f))
	{
		CHECK(pthread_create(
			      &id, nullptr,
			      [](void *self) -> void * {
				      static_cast<thread *>(self)->run();
				      return nullptr;
			      },
			      this) == 0);
	}
	thread(const thread &) = delete;
	~thread()
	{
		CHECK(pthread_join(id, nullptr) == 0);
	}

private:
	F run;
	pthread_t id;
};

/* ------------------------------------------------------------------- types */

template <class T> constexpr bool moves_only()
{
	return std::is_nothrow_move_constructible_v<T> &&
	       std::is_nothrow_move_assignable_v<T> &&
	       std::is_nothrow_default_constructible_v<T> &&
	       !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
}

template <class T> constexpr bool is_shared()
{
	return std::is_nothrow_move_constructible_v<T> &&
	       std::is_nothrow_move_assignable_v<T> &&
	       std::is_nothrow_default_constructible_v<T> &&
	       std::is_nothrow_copy_constructible_v<T> &&
	       std::is_nothrow_copy_assignable_v<T>;
}

static_assert(moves_only<bufpool::pool>() && moves_only<bufpool::buffer>());
static_assert(is_shared<bufpool::frozen>() && is_shared<bufpool::slice>());
static_assert(sizeof(bufpool::pool) == sizeof(void *));
static_assert(sizeof(bufpool::buffer) == sizeof(void *));
static_assert(sizeof(bufpool::frozen) == sizeof(void *));
static_assert(sizeof(bufpool::slice) == sizeof(bufpool_slice_t));

/* Handles are never taken over by accident, and none is made of another's. */
static_assert(!std::is_convertible_v<bufpool_buf_t *, bufpool::buffer>);
static_assert(!std::is_convertible_v<bufpool_slice_t, bufpool::slice>);
static_assert(!std::is_constructible_v<bufpool::buffer, bufpool_frozen_t *>);
static_assert(!std::is_convertible_v<bufpool::buffer, bool>);

/* Views of what is about to go, by accident again. */
template <class T> constexpr bool views_text()
{
	return std::is_constructible_v<std::string_view, const T &> &&
	       std::is_constructible_v<std::string_view, T &> &&
	       !std::is_constructible_v<std::string_view, T> &&
	       !std::is_convertible_v<const T &, std::string_view>;
}

static_assert(views_text<bufpool::buffer>() && views_text<bufpool::frozen>() &&
	      views_text<bufpool::slice>());

template <class T>
constexpr bool is_written = std::is_same_v<decltype(*std::declval<T>().data()),
					   std::byte &>;

static_assert(is_written<bufpool::buffer &>);
static_assert(!is_written<const bufpool::buffer &>);
static_assert(!is_written<bufpool::frozen &> && !is_written<bufpool::slice &>);

#ifdef __cpp_lib_span
template <class T> constexpr bool views_bytes()
{
	return std::is_convertible_v<T &, std::span<const std::byte>> &&
	       std::is_convertible_v<const T &, std::span<const std::byte>> &&
	       std::is_convertible_v<T &, std::span<std::byte>> ==
		       is_written<T &> &&
	       !std::is_convertible_v<const T &, std::span<std::byte>> &&
	       !std::is_constructible_v<std::span<std::byte>, T>;
}

static_assert(views_bytes<bufpool::buffer>() &&
	      views_bytes<bufpool::frozen>() && views_bytes<bufpool::slice>());
#endif

/* ------------------------------------------------------------------ buffers */

void sizes()
{
	auto pool = bufpool::pool::create();
	const std::size_t asked[] = { 0, 1, page, page + 1,
				      BUFPOOL_MAX_CLASS_SIZE + 1 };

	for (std::size_t size : asked) {
		bufpool::buffer buf = pool.checkout(size);
		const int k = bufpool_class_for(size);

		CHECK(buf && buf.size() == size && buf.empty() == (size == 0));
		CHECK(buf.capacity() == (k < 0 ? size : bufpool_class_size(k)));
		CHECK(buf.data() == buf.get()->data);
		CHECK(out(pool) == 1);
	}
	CHECK(out(pool) == 0);
}

void the_other_checkouts()
{
	auto config = config_of(4, 1);
	config.wipe = BUFPOOL_WIPE_NONE;
	auto pool = bufpool::pool::create(config);
	bufpool::buffer buf = pool.checkout(page);

	std::fill(buf.begin(), buf.end(), std::byte{ 1 });
	buf = pool.checkout(page); /* the first goes home after this one came */
	std::fill(buf.begin(), buf.end(), std::byte{ 1 });
	for (int i = 0; i < 4; i++) {
		auto zeroed = pool.checkout_zeroed(page);
		CHECK(std::count(zeroed.begin(), zeroed.end(), std::byte{ 0 }) ==
		      static_cast<std::ptrdiff_t>(page));
	}
	auto aligned = pool.checkout_aligned(page + 1, 65536);
	CHECK(reinterpret_cast<std::uintptr_t>(aligned.data()) % 65536 == 0);
	CHECK(pool.checkout_aligned(std::nothrow, 1, page));
	CHECK(pool.checkout_zeroed(std::nothrow, 1));
	CHECK(pool.try_checkout(1).size() == 1);
	CHECK(pool.try_checkout(std::nothrow, 1));
	CHECK(out(pool) == 2);
}

void moving()
{
	auto pool = make_pool(2);
	bufpool::buffer a = pool.checkout(1), b = pool.checkout(2);
	void *first = a.data();

	CHECK(!pool.checkout(std::nothrow, 1));
	b = std::move(a); /* what b had goes home */
	CHECK(out(pool) == 1 && b.data() == first && !a);
	bufpool::buffer &same = b;
	b = std::move(same);
	CHECK(out(pool) == 1 && b.data() == first);
	std::swap(a, b);
	CHECK(a.data() == first && !b);

	bufpool::buffer c(std::move(a));
	CHECK(out(pool) == 1 && c.size() == 1);
	bufpool_buf_t *handle = c.release();
	CHECK(out(pool) == 1 && !c && handle->data == first);
	c = bufpool::buffer(handle);
	c.reset();
	CHECK(out(pool) == 0 && !c);
	c.reset();
	std::vector<bufpool::buffer> many(2);
	for (auto &buf : many)
		buf = pool.checkout(page);
	many.erase(many.begin());
	CHECK(out(pool) == 1);
}

void empty_ones()
{
	bufpool::buffer buf;
	bufpool::frozen f;
	bufpool::slice s;

	CHECK(!buf && buf.empty() && buf.begin() == buf.end());
	CHECK(buf.capacity() == 0 && buf.get() == nullptr);
	CHECK(!f && f.empty() && f.begin() == f.end());
	CHECK(!s && s.empty() && s.begin() == s.end() && !s.owner());
	CHECK(std::string_view(buf).empty() && std::string_view(f).empty());
	errno = sentinel;
	bufpool::frozen g = f;
	bufpool::slice t = s;
	g = f;
	t = s;
	buf.resize(0);
	buf.reset();
	f.reset();
	s.reset();
	CHECK(errno == sentinel && !g && !t);
	CHECK(!std::move(buf).freeze());
	THROWS(EINVAL, std::move(f).thaw());
	THROWS(EINVAL, f.slice(0, 0));
	THROWS(EINVAL, s.subslice(0, 1));
	REFUSED(EINVAL, std::move(f).thaw(std::nothrow));
	REFUSED(EINVAL, f.slice(std::nothrow, 0, 0));
	REFUSED(EINVAL, s.subslice(std::nothrow, 0, 0));
}

void resizing()
{
	auto pool = make_pool(1);
	auto buf = pool.checkout(1);

	buf.resize(page);
	CHECK(buf.size() == page && buf.get()->len == page);
	buf.resize(0);
	CHECK(buf.empty());
	buf.resize(7);
	for (std::size_t size : { page + 1, SIZE_MAX }) {
		CHECK(thrown<std::length_error>([&] { buf.resize(size); }));
		CHECK(buf.size() == 7);
	}
	buf.reset(); /* nothing aborts */
	CHECK(thrown<std::length_error>([&] { buf.resize(1); }));
}

void iterating()
{
	auto pool = make_pool(2);
	auto buf = pool.checkout(256);
	const auto &seen = buf;
	unsigned char next = 0;

	for (std::byte &b : buf)
		b = static_cast<std::byte>(next++);
	CHECK(std::distance(seen.begin(), seen.end()) == 256);
	CHECK(seen.cbegin() == seen.begin() && seen.cend() == seen.end());
	CHECK(seen[255] == std::byte{ 255 } && &buf[3] == buf.data() + 3);
	const unsigned sum = std::accumulate(
		seen.begin(), seen.end(), 0u, [](unsigned n, std::byte b) {
			return n + std::to_integer<unsigned>(b);
		});
	CHECK(sum == 255 * 256 / 2);
	buf.resize(1);
	CHECK(seen.end() - seen.begin() == 1 && buf.end() - buf.begin() == 1);
#ifdef __cpp_lib_span
	buf.resize(256);
	std::span<std::byte> all = buf;
	std::span same(seen);
	CHECK(all.data() == buf.data() && all.size() == 256);
	CHECK(same.data() == buf.data() && same.size() == 256);
#endif
}

void text_is_viewed()
{
	auto pool = make_pool(2);
	const bufpool::buffer buf = text(pool, "sunflower");
	const bufpool::frozen f = text(pool, "seed").freeze();

	CHECK(std::string_view(buf) == "sunflower");
	CHECK(std::string_view(f) == "seed");
	const bufpool::slice s = f.slice(1, 2);
	CHECK(std::string_view(s) == "ee");
}

void erased()
{
	auto pool = make_pool(1);

	text(pool, "secret").reset();
	auto buf = pool.checkout(page);
	CHECK(std::all_of(buf.begin(), buf.end(),
			  [](std::byte b) { return b == std::byte{ 0 }; }));
}

/* Where checkout goes to the heap, try_checkout does not. */
void trying()
{
	auto config = config_of(1, 0);

	config.exhausted = BUFPOOL_HEAP;
	auto pool = bufpool::pool::create(config);
	auto last = pool.try_checkout(1);
	CHECK(pool.checkout(1).size() == 1);
	THROWS(ENOBUFS, pool.try_checkout(1));
	REFUSED(ENOBUFS, pool.try_checkout(std::nothrow, 1));
}

/* ------------------------------------------------------------------- errors */

void errors_are_thrown()
{
	auto pool = make_pool(1);
	auto last = pool.checkout(1);

	THROWS(ENOBUFS, pool.checkout(1));
	THROWS(ENOBUFS, pool.checkout_zeroed(1));
	THROWS(ENOBUFS, pool.checkout_aligned(1, 1));
	THROWS(EINVAL, pool.checkout_aligned(1, 3));
	THROWS(ENOBUFS, pool.try_checkout(1));
	THROWS(EOVERFLOW, pool.checkout(SIZE_MAX));
	auto e = thrown<std::system_error>([&] { pool.checkout(1); });
	CHECK(e && e->code() == std::errc::no_buffer_space);
	CHECK(std::strstr(e->what(), "bufpool_checkout"));
	auto config = config_of(1, 0);
	config.size = 0;
	THROWS(EINVAL, bufpool::pool::create(config));
	CHECK(out(pool) == 1);
}

void errors_are_returned()
{
	auto pool = make_pool(1);

	errno = sentinel;
	std::optional<bufpool::buffer> last = pool.checkout(std::nothrow, 1);
	CHECK(last && *last && errno == sentinel);
	REFUSED(ENOBUFS, pool.checkout(std::nothrow, 1));
	REFUSED(ENOBUFS, pool.checkout_zeroed(std::nothrow, 1));
	REFUSED(ENOBUFS, pool.checkout_aligned(std::nothrow, 1, 1));
	REFUSED(EINVAL, pool.checkout_aligned(std::nothrow, 1, 3));
	REFUSED(ENOBUFS, pool.try_checkout(std::nothrow, 1));
	REFUSED(EOVERFLOW, pool.checkout(std::nothrow, SIZE_MAX));
	auto config = config_of(1, 0);
	config.flags = ~0u;
	REFUSED(EINVAL, bufpool::pool::create(std::nothrow, config));
	CHECK(bufpool::pool::create(std::nothrow));
	last.reset();
	CHECK(out(pool) == 0);
}

void a_throw_loses_nothing()
{
	auto pool = make_pool(2);

	CHECK(thrown<std::system_error>([&] {
		auto buf = pool.checkout(1);
		auto f = pool.checkout(1).freeze();
		auto copy = f;

		CHECK(out(pool) == 2);
		pool.checkout(1);
	}));
	CHECK(out(pool) == 0);
}

/* ------------------------------------------------------------------- waiting */

void timeouts()
{
	using namespace std::chrono;
	using namespace std::chrono_literals;
	auto pool = make_pool(1);
	auto buf = pool.checkout(1);

	THROWS(ETIMEDOUT, pool.checkout_wait(1, 0s));
	THROWS(ETIMEDOUT, pool.checkout_wait(1, 1ms));
	REFUSED(ETIMEDOUT, pool.checkout_wait(std::nothrow, 1, 1us));
	REFUSED(ETIMEDOUT,
		pool.checkout_wait(std::nothrow, 1, duration<float>(0.001f)));
	REFUSED(EINVAL, pool.checkout_wait(std::nothrow, 1, -1ns));
	REFUSED(EINVAL, pool.checkout_wait(std::nothrow, 1, hours::min()));
	THROWS(ENOBUFS, pool.checkout_wait(1u << 20, 1h));
	THROWS(ENOBUFS, pool.checkout_wait(1u << 20));
	REFUSED(ENOBUFS, pool.checkout_wait(std::nothrow, 1u << 20));
	pool.shutdown();
	THROWS(ECANCELED, pool.checkout_wait(1));
	REFUSED(ECANCELED, pool.checkout(std::nothrow, 1));
}

/* What a timeout is to the library. */
template <class Duration>
bool is(Duration timeout, std::time_t seconds, long nanoseconds)
{
	const timespec t = bufpool::detail::relative(timeout);

	return t.tv_sec == seconds && t.tv_nsec == nanoseconds;
}

void timeouts_of_all_units()
{
	using namespace std::chrono;
	using picoseconds = duration<std::int64_t, std::pico>;

	CHECK(is(nanoseconds(1999999999), 1, 999999999));
	CHECK(is(milliseconds(1500), 1, 500000000));
	CHECK(is(hours(2), 7200, 0));
	CHECK(is(picoseconds(2500), 0, 2));
	CHECK(is(duration<double>(2.25), 2, 250000000));
	CHECK(is(duration<double, std::milli>(2.5), 0, 2500000));
	/* 68 years, which the library takes for ever */
	CHECK(is(hours::max(), INT32_MAX, 0));
	CHECK(is(duration<double>(1e300), INT32_MAX, 0));
	CHECK(is(nanoseconds::max(), INT32_MAX, 0));
	CHECK(is(hours::min(), -1, 0));
	CHECK(is(nanoseconds(-1), -1, 0));
}

void waits_end_by_a_return()
{
	auto pool = make_pool(1);
	auto buf = pool.checkout(1);

	/* Before the wait or in its course. */
	thread returns([&] { buf.reset(); });
	CHECK(pool.checkout_wait(1).size() == 1);
	CHECK(pool.checkout_wait(2, std::chrono::hours::max()).size() == 2);
	CHECK(pool.checkout_wait(std::nothrow, 3)->size() == 3);
}

/* ------------------------------------------------------------------- sharing */

void copies_are_references()
{
	auto pool = make_pool(1);
	auto buf = text(pool, "shared");
	const void *data = buf.data();
	bufpool::frozen f = std::move(buf).freeze();

	CHECK(!buf && f && f.data() == data && f.size() == 6);
	{
		bufpool::frozen copy = f, other;

		other = copy;
		CHECK(copy.get() == f.get() && other.get() == f.get());
		THROWS(EBUSY, std::move(f).thaw());
		REFUSED(EBUSY, std::move(f).thaw(std::nothrow));
		CHECK(f);
		const bufpool::frozen &same = other;
		other = same;
		CHECK(std::string_view(other) == "shared");
	}
	buf = std::move(f).thaw(); /* only one is left */
	CHECK(!f && std::string_view(buf) == "shared");
	f = std::move(buf).freeze();
	CHECK(std::move(f).thaw(std::nothrow)->size() == 6);
	CHECK(!f && out(pool) == 0);
}

void the_last_sends_it_home()
{
	auto pool = make_pool(1);
	bufpool::frozen f = text(pool, "last").freeze();
	bufpool::frozen copy = f, moved = std::move(copy);

	f.reset();
	CHECK(out(pool) == 1 && !copy);
	{
		thread releases([mine = std::move(moved)]() mutable {
			CHECK(std::string_view(mine) == "last");
			mine.reset();
		});
	}
	CHECK(out(pool) == 0);

	f = text(pool, "by hand").freeze();
	bufpool_frozen_t *handle = f.release();
	CHECK(!f && out(pool) == 1);
	f = bufpool::frozen(handle);
	f = bufpool::frozen();
	CHECK(out(pool) == 0);
}

void slices()
{
	auto pool = make_pool(1);
	bufpool::frozen f = text(pool, "0123456789").freeze();
	bufpool::slice s = f.slice(2, 5), none = f.slice(10, 0);

	CHECK(std::string_view(s) == "23456" && s.data() == f.data() + 2);
	CHECK(none && none.empty() && s.owner().get() == f.get());
	THROWS(ERANGE, f.slice(11, 0));
	THROWS(ERANGE, f.slice(1, SIZE_MAX));
	REFUSED(ERANGE, f.slice(std::nothrow, 5, 6));
	CHECK(f.slice(std::nothrow, 5, 5)->size() == 5);

	const bufpool::slice part = s.subslice(1, 3), all = s.subslice(0, 5);
	CHECK(std::string_view(part) == "345" && all.data() == s.data());
	THROWS(ERANGE, s.subslice(0, 6)); /* inside of f */
	THROWS(ERANGE, s.subslice(SIZE_MAX, 2));
	REFUSED(ERANGE, s.subslice(std::nothrow, 6, 0));
	CHECK(std::string_view(*part.subslice(std::nothrow, 2, 1).operator->())
		      .size() == 1);
}

void slices_outlive_their_owner()
{
	auto pool = make_pool(1);
	bufpool::slice s = text(pool, "0123456789").freeze().slice(3, 4);
	bufpool::slice copy = s, moved = std::move(s);

	CHECK(!s && s.empty() && s.data() == nullptr);
	CHECK(std::string_view(copy) == "3456");
	copy = moved;
	bufpool::slice &same = copy;
	copy = std::move(same);
	CHECK(copy.data() == moved.data() && copy.size() == 4);
	moved.reset();
	CHECK(!moved && out(pool) == 1);

	bufpool_slice_t raw = copy.release();
	CHECK(!copy && raw.len == 4 && out(pool) == 1);
	copy = bufpool::slice(raw);
	REFUSED(EBUSY, bufpool::frozen(copy.owner()).thaw(std::nothrow));
	copy = bufpool::slice();
	CHECK(out(pool) == 0);
}

/* --------------------------------------------------------------------- pools */

void pools_are_moved()
{
	auto pool = make_pool(2);
	auto buf = pool.checkout(1);
	bufpool::pool other = std::move(pool), third;

	CHECK(!pool && other);
	THROWS(EINVAL, pool.checkout(1));
	REFUSED(EINVAL, pool.checkout(std::nothrow, 1));
	CHECK(pool.stats().checked_out == 0);
	pool.shutdown();
	third = make_pool(1);
	third = std::move(other); /* which ends the pool that it was */
	CHECK(out(third) == 1);
	buf.reset();
	CHECK(out(third) == 0);
	bufpool_t *handle = third.release();
	CHECK(!third);
	third.reset();
	pool = bufpool::pool(handle);
	CHECK(pool.checkout(1).size() == 1);
}

void pools_end_before_their_buffers()
{
	bufpool::buffer buf, late;
	bufpool::frozen f;
	bufpool::slice s;
	int detached = 0;
	{
		auto config = config_of(4, 0);

		config.region_arg = &detached;
		config.region_attach = [](void *, const bufpool_region_t *)
			-> void * { return nullptr; };
		config.region_detach = [](void *arg, const bufpool_region_t *,
					  void *) { ++*static_cast<int *>(arg); };
		auto pool = bufpool::pool::create(config);
		buf = text(pool, "buffer");
		f = text(pool, "frozen").freeze();
		s = text(pool, "slice").freeze().slice(1, 4);
		late = pool.checkout(1);
	}
	CHECK(detached == 0);
	CHECK(std::string_view(buf) == "buffer");
	CHECK(std::string_view(f) == "frozen" && std::string_view(s) == "lice");
	buf.reset();
	buf = std::move(f).thaw();
	{
		thread returns([&] { buf.reset(); });
	}
	s.reset();
	CHECK(detached == 0);
	late.reset();
	CHECK(detached == 1);
}

/* --------------------------------------------------------- memory resources */

#ifdef __cpp_lib_memory_resource

/* An upstream that keeps account. */
class counted : public std::pmr::memory_resource
{
public:
	std::size_t live = 0, served = 0;

private:
	std::pmr::memory_resource *heap = std::pmr::new_delete_resource();

	void *do_allocate(std::size_t size, std::size_t alignment) override
	{
		void *p = heap->allocate(size, alignment);

		live += size;
		served++;
		return p;
	}
	void do_deallocate(void *p, std::size_t size,
			   std::size_t alignment) override
	{
		live -= size;
		heap->deallocate(p, size, alignment);
	}
	bool do_is_equal(const memory_resource &other) const noexcept override
	{
		return this == &other;
	}
};

void containers_in_the_pool()
{
	auto pool = make_pool(4, 2);
	counted upstream;
	bufpool::memory_resource memory(pool, &upstream);
	{
		std::pmr::vector<int> v(&memory);

		v.reserve(1000);
		CHECK(out(pool) == 1 && bufpool_buf_at(pool.get(), v.data()));
		CHECK(bufpool_buf_at(pool.get(), v.data())->len == 4000);
		v.reserve(10000); /* from one class to the next */
		CHECK(out(pool) == 1 && upstream.served == 0);
		v.resize(1000000); /* above the largest */
		CHECK(out(pool) == 0 && upstream.live == 4000000);
		v.resize(10);
		v.shrink_to_fit();
		CHECK(out(pool) == 1 && upstream.live == 0);
		bufpool::pool moved = std::move(pool);
		v.reserve(1000);
		pool = std::move(moved);
		CHECK(out(pool) == 1);
	}
	CHECK(out(pool) == 0 && upstream.live == 0);
}

/* Under either policy: the heap's stand-ins would not be found again. */
void each_goes_back_where_it_came_from()
{
	for (auto exhausted : { BUFPOOL_HEAP, BUFPOOL_FAIL }) {
		auto config = config_of(2, 0);
		config.exhausted = exhausted;
		auto pool = bufpool::pool::create(config);
		counted upstream;
		bufpool::memory_resource memory(pool, &upstream);
		void *p[5];

		for (void *&each : p)
			each = memory.allocate(page);
		CHECK(out(pool) == 2 && upstream.live == 3 * page);
		CHECK(pool.stats().misses == 0);
		std::memset(p[0], 1, page);
		std::memset(p[4], 1, page);
		/* The oldest first; then what is idle is taken again. */
		memory.deallocate(p[0], page);
		CHECK(out(pool) == 1 && upstream.live == 3 * page);
		p[0] = memory.allocate(0);
		CHECK(out(pool) == 2 && upstream.live == 3 * page);
		memory.deallocate(p[0], 0);
		memory.deallocate(p[2], page);
		CHECK(out(pool) == 1 && upstream.live == 2 * page);
		pool.shutdown();
		p[0] = memory.allocate(page);
		CHECK(out(pool) == 1 && upstream.live == 3 * page);
		for (int i : { 0, 1, 3, 4 })
			memory.deallocate(p[i], page);
		CHECK(out(pool) == 0 && upstream.live == 0);
	}
}

void aligned_memory()
{
	auto pool = make_pool(4, 1);
	counted upstream;
	bufpool::memory_resource memory(pool, &upstream);

	for (std::size_t alignment = 1; alignment <= 4u << 20; alignment *= 2) {
		void *p = memory.allocate(100, alignment);
		const auto address = reinterpret_cast<std::uintptr_t>(p);

		CHECK(address % alignment == 0);
		CHECK(out(pool) == (alignment <= 65536 ? 1 : 0));
		std::memset(p, 1, 100);
		memory.deallocate(p, 100, alignment);
		CHECK(out(pool) == 0 && upstream.live == 0);
	}
}

void memory_leaves_errno_alone()
{
	auto pool = make_pool(1);
	bufpool::memory_resource memory(pool);
	void *p[2];

	CHECK(memory.upstream_resource() == std::pmr::get_default_resource());
	CHECK(memory == memory && memory != bufpool::memory_resource(pool));
	errno = sentinel;
	for (void *&each : p)
		each = memory.allocate(1);
	for (void *each : p)
		memory.deallocate(each, 1);
	CHECK(errno == sentinel && out(pool) == 0);
}

void upstreams_may_refuse()
{
	auto pool = make_pool(1);
	bufpool::memory_resource memory(pool, std::pmr::null_memory_resource());
	void *p = memory.allocate(1), *none = nullptr;

	CHECK(thrown<std::bad_alloc>([&] { none = memory.allocate(1); }));
	CHECK(out(pool) == 1);
	memory.deallocate(p, 1);
	CHECK(thrown<std::bad_alloc>(
		[&] { none = memory.allocate(1, 1u << 20); }));
	CHECK(out(pool) == 0 && none == nullptr);
}

void small_pieces_through_another()
{
	auto pool = make_pool(64, 16);
	counted upstream;
	bufpool::memory_resource memory(pool, &upstream);
	{
		std::pmr::unsynchronized_pool_resource pieces(&memory);
		std::pmr::vector<std::pmr::vector<char>> v(&pieces);

		for (std::size_t i = 0; i < 300; i++)
			v.emplace_back(i);
		CHECK(out(pool) > 0 && upstream.live == 0);
	}
	CHECK(out(pool) == 0);
}

#endif

} /* namespace */

int main()
{
	sizes();
	the_other_checkouts();
	moving();
	empty_ones();
	resizing();
	iterating();
	text_is_viewed();
	erased();
	trying();
	errors_are_thrown();
	errors_are_returned();
	a_throw_loses_nothing();
	timeouts();
	timeouts_of_all_units();
	waits_end_by_a_return();
	copies_are_references();
	the_last_sends_it_home();
	slices();
	slices_outlive_their_owner();
	pools_are_moved();
	pools_end_before_their_buffers();
#ifdef __cpp_lib_memory_resource
	containers_in_the_pool();
	each_goes_back_where_it_came_from();
	aligned_memory();
	memory_leaves_errno_alone();
	upstreams_may_refuse();
	small_pieces_through_another();
#endif
}
