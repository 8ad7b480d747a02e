/* SPDX-License-Identifier: MIT */
/*
 * bufpool.hpp - <bufpool.h> for C++17 and later
 *
 * The same pools and buffers, as objects that end what they hold:
 *
 *     bufpool::pool pool = bufpool::pool::create();
 *     bufpool::buffer buf = pool.checkout(3000);
 *     ssize_t n = read(fd, buf.data(), buf.capacity());
 *
 *     buf.resize(n > 0 ? std::size_t(n) : 0);
 *     ...
 *     bufpool::frozen shared = std::move(buf).freeze();
 *
 * What <bufpool.h> says of the calls holds here too, for each member is one of
 * them, by the same name, and takes the same instructions.  What has no member,
 * get() gives a handle for.
 *
 * Ownership. A pool and a buffer are moved, a frozen buffer and a slice are also
 * copied: each copy is one more reference.  What is left behind by a move, or made
 * without arguments, is empty: it is false, holds nothing, has no bytes, and a call
 * on it fails with EINVAL.  A constructor takes over a handle of <bufpool.h>,
 * release() gives it up.  A pool may be moved, and end, while its buffers are out.
 *
 * Thread-safety. One object is for one thread at a time, const members for any
 * number, as in the standard library.  All calls on a pool are const.
 *
 * Errors. What fails throws std::system_error, with the errno that <bufpool.h>
 * says, of std::generic_category().  With std::nothrow as the first argument it
 * throws nothing, and returns a std::optional: std::nullopt, and errno says why.
 */
#ifndef BUFPOOL_HPP
#define BUFPOOL_HPP

#if __cplusplus < 201703L
#error "bufpool.hpp needs C++17; bufpool.h does not"
#endif

#include <bufpool.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>
#if __has_include(<memory_resource>)
#include <memory_resource>
#endif

namespace bufpool
{

class buffer;
class frozen;
class slice;

namespace detail
{

/* The library's, under names that say that they throw nothing: so a destructor may
   end by a jump there, as a function in C does. */
extern "C" {
void bp_cxx_return(bufpool_buf_t *buf) noexcept __asm__("bufpool_return");
void bp_cxx_unref(bufpool_frozen_t *f) noexcept __asm__("bufpool_frozen_unref");
}

inline void end(bufpool_t *pool) noexcept
{
	bufpool_destroy(pool);
}

[[gnu::always_inline]] inline void end(bufpool_buf_t *buf) noexcept
{
#ifdef BUFPOOL_INLINE
	bufpool_return(buf);
#else
	bp_cxx_return(buf);
#endif
}

inline void end(bufpool_frozen_t *f) noexcept
{
	bp_cxx_unref(f);
}

/* Holds a handle, or none, and ends it. */
template <class Handle> class owner
{
public:
	owner() = default;
	explicit owner(Handle *handle) noexcept : handle_(handle)
	{
	}
	owner(owner &&other) noexcept : handle_(other.release())
	{
	}
	owner &operator=(owner &&other) noexcept
	{
		Handle *handle = other.release();

		reset();
		handle_ = handle;
		return *this;
	}
	[[gnu::always_inline]] ~owner()
	{
		if (handle_ != nullptr)
			end(handle_);
	}

	Handle *get() const noexcept
	{
		return handle_;
	}
	explicit operator bool() const noexcept
	{
		return handle_ != nullptr;
	}
	Handle *release() noexcept
	{
		return std::exchange(handle_, nullptr);
	}
	/* End it now. */
	void reset() noexcept
	{
		const owner ended(release());
	}

private:
	Handle *handle_ = nullptr;
};

/* Out of the way of what succeeds. */
[[noreturn, gnu::cold, gnu::noinline]] inline void fail(const char *call)
{
	throw std::system_error(errno, std::generic_category(), call);
}

/* Whether a call has returned something; */
inline bool is_made(const void *handle) noexcept
{
	return handle != nullptr;
}

inline bool is_made(const bufpool_slice_t &s) noexcept
{
	return s.owner != nullptr;
}

/* its owner, */
template <class Owner, class Handle> Owner made(Handle handle, const char *call)
{
	if (!is_made(handle))
		fail(call);
	return Owner(handle);
}

/* and the same for std::nothrow. */
template <class Owner, class Handle>
std::optional<Owner> made(std::nothrow_t, Handle handle) noexcept
{
	if (!is_made(handle))
		return std::nullopt;
	return std::optional<Owner>(std::in_place, handle);
}

/* What the data() and size() of T are good for. */
template <class T> class bytes
{
public:
	using value_type = std::byte;
	using size_type = std::size_t;
	using difference_type = std::ptrdiff_t;
	using const_pointer = const std::byte *;
	using const_reference = const std::byte &;
	using const_iterator = const std::byte *;

	const_iterator begin() const noexcept
	{
		return self().data();
	}
	const_iterator end() const noexcept
	{
		return self().data() + self().size();
	}
	const_iterator cbegin() const noexcept
	{
		return begin();
	}
	const_iterator cend() const noexcept
	{
		return end();
	}
	bool empty() const noexcept
	{
		return self().size() == 0;
	}
	const_reference operator[](size_type i) const noexcept
	{
		return self().data()[i];
	}

	/* Valid for as long as the bytes are: not made of what is about to go. */
	explicit operator std::string_view() const & noexcept
	{
		return { reinterpret_cast<const char *>(self().data()),
			 self().size() };
	}
	explicit operator std::string_view() const && = delete;

private:
	friend T;
	bytes() = default;

	const T &self() const noexcept
	{
		return static_cast<const T &>(*this);
	}
};

/* A timeout as C has it. */
template <class Rep, class Period>
timespec relative(std::chrono::duration<Rep, Period> timeout) noexcept
{
	using namespace std::chrono;
	constexpr double most = INT32_MAX; /* seconds; 68 years */
	/* Of no unit that could overflow. */
	const double about = duration<double>(timeout).count();
	timespec t{};

	if (about < 0) {
		t.tv_sec = -1; /* EINVAL */
	} else if (about < most) {
		const auto whole = duration_cast<seconds>(timeout);
		const auto rest = duration_cast<nanoseconds>(timeout - whole);

		t.tv_sec = static_cast<time_t>(whole.count());
		t.tv_nsec = static_cast<long>(rest.count());
	} else {
		t.tv_sec = static_cast<time_t>(most);
	}
	return t;
}

} // namespace detail

/* ----------------------------------------------------------------- buffers */

/*
 * A buffer: writable, with a single owner; its end is its bufpool_return().  A
 * contiguous range of size() bytes, which makes a std::span; and a string_view,
 * where the bytes are text: std::string_view(buf).
 */
class buffer : public detail::owner<bufpool_buf_t>,
	       public detail::bytes<buffer>
{
public:
	using pointer = std::byte *;
	using reference = std::byte &;
	using iterator = std::byte *;

	using owner::owner;
	buffer() = default;
	buffer(buffer &&) = default;
	buffer &operator=(buffer &&) = default;
	[[gnu::always_inline]] ~buffer() = default;

	pointer data() noexcept
	{
		return *this ? static_cast<pointer>(get()->data) : nullptr;
	}
	const_pointer data() const noexcept
	{
		return *this ? static_cast<pointer>(get()->data) : nullptr;
	}
	/* Bytes in use: the len of a bufpool_buf_t. */
	size_type size() const noexcept
	{
		return *this ? get()->len : 0;
	}
	size_type capacity() const noexcept
	{
		return *this ? get()->capacity : 0;
	}
	/* Say how many bytes are in use; changes none of them.  Above the
	   capacity it throws std::length_error. */
	void resize(size_type size)
	{
		if (size > capacity())
			throw std::length_error("bufpool::buffer::resize");
		if (*this)
			get()->len = size;
	}

	using bytes::begin, bytes::end, bytes::operator[];
	iterator begin() noexcept
	{
		return data();
	}
	iterator end() noexcept
	{
		return data() + size();
	}
	reference operator[](size_type i) noexcept
	{
		return data()[i];
	}

	/* Make it a frozen one; this is empty then.  Of an empty one that is
	   empty, too. */
	frozen freeze() && noexcept;
};

/*
 * A reference to a frozen buffer; its end is its bufpool_frozen_unref(), a copy is
 * one more.  A contiguous range of bytes that nobody writes.
 */
class frozen : public detail::owner<bufpool_frozen_t>,
	       public detail::bytes<frozen>
{
public:
	using owner::owner;
	frozen() = default;
	frozen(const frozen &other) noexcept
		: owner(other ? bufpool_frozen_ref(other.get()) : nullptr),
		  bytes()
	{
	}
	frozen(frozen &&) = default;
	frozen &operator=(const frozen &other) noexcept
	{
		return *this = frozen(other);
	}
	frozen &operator=(frozen &&) = default;
	~frozen() = default;

	const_pointer data() const noexcept
	{
		return *this ? static_cast<const_pointer>(
				       bufpool_frozen_data(get()))
			     : nullptr;
	}
	size_type size() const noexcept
	{
		return *this ? bufpool_frozen_len(get()) : 0;
	}

	/* Make the only reference a buffer again; this is empty then.  EBUSY:
	   there are others; this stays as it is. */
	buffer thaw() &&
	{
		buffer buf = detail::made<buffer>(bufpool_thaw(get()),
						  "bufpool_thaw");

		release();
		return buf;
	}
	std::optional<buffer> thaw(std::nothrow_t) && noexcept
	{
		std::optional<buffer> buf =
			detail::made<buffer>(std::nothrow, bufpool_thaw(get()));

		if (buf)
			release();
		return buf;
	}

	/* A view of len bytes at offset.  ERANGE: not inside. */
	bufpool::slice slice(size_type offset, size_type len) const;
	std::optional<bufpool::slice> slice(std::nothrow_t, size_type offset,
					    size_type len) const noexcept;
};

/*
 * A view into a frozen buffer, which holds one reference to it; its end is its
 * bufpool_slice_release(), a copy is one more.
 */
class slice : public detail::bytes<slice>
{
public:
	slice() = default;
	explicit slice(bufpool_slice_t s) noexcept
		: owner_(s.owner), data_(static_cast<const_pointer>(s.data)),
		  size_(s.len)
	{
	}
	slice(const slice &) = default;
	slice(slice &&other) noexcept : slice(other.release())
	{
	}
	slice &operator=(slice other) noexcept
	{
		std::swap(owner_, other.owner_);
		std::swap(data_, other.data_);
		std::swap(size_, other.size_);
		return *this;
	}
	~slice() = default;

	const_pointer data() const noexcept
	{
		return data_;
	}
	size_type size() const noexcept
	{
		return size_;
	}
	/* What it is a view of. */
	const frozen &owner() const noexcept
	{
		return owner_;
	}

	explicit operator bool() const noexcept
	{
		return static_cast<bool>(owner_);
	}
	bufpool_slice_t release() noexcept
	{
		const void *data = std::exchange(data_, nullptr);
		const size_type size = std::exchange(size_, 0);

		return { data, size, owner_.release() };
	}
	void reset() noexcept
	{
		*this = slice();
	}

	/* A view of a part of it.  ERANGE: not inside of this slice. */
	slice subslice(size_type offset, size_type len) const
	{
		return detail::made<slice>(part(offset, len), "bufpool_slice");
	}
	std::optional<slice> subslice(std::nothrow_t, size_type offset,
				      size_type len) const noexcept
	{
		return detail::made<slice>(std::nothrow, part(offset, len));
	}

private:
	bufpool_slice_t part(size_type offset, size_type len) const noexcept
	{
		if (*this && (offset > size_ || len > size_ - offset)) {
			errno = ERANGE;
			return {};
		}
		return bufpool_slice(owner_.get(),
				     static_cast<size_type>(begin() -
							    owner_.begin()) +
					     offset,
				     len);
	}

	frozen owner_;
	const_pointer data_ = nullptr;
	size_type size_ = 0;
};

inline frozen buffer::freeze() && noexcept
{
	return frozen(bufpool_freeze(release()));
}

inline slice frozen::slice(size_type offset, size_type len) const
{
	return detail::made<bufpool::slice>(bufpool_slice(get(), offset, len),
					    "bufpool_slice");
}

inline std::optional<slice> frozen::slice(std::nothrow_t, size_type offset,
					  size_type len) const noexcept
{
	return detail::made<bufpool::slice>(std::nothrow,
					    bufpool_slice(get(), offset, len));
}

/* ------------------------------------------------------------------- pools */

/* A pool; its end is its bufpool_destroy(). */
class pool : public detail::owner<bufpool_t>
{
public:
	using owner::owner;

	static pool create(const bufpool_config_t &config = BUFPOOL_CONFIG_INIT)
	{
		return detail::made<pool>(bufpool_create(&config),
					  "bufpool_create");
	}
	static std::optional<pool>
	create(std::nothrow_t,
	       const bufpool_config_t &config = BUFPOOL_CONFIG_INIT) noexcept
	{
		return detail::made<pool>(std::nothrow, bufpool_create(&config));
	}

	void shutdown() const noexcept
	{
		bufpool_shutdown(get());
	}
	bufpool_stats_t stats() const noexcept
	{
		bufpool_stats_t s;

		bufpool_stats(get(), &s);
		return s;
	}

	buffer checkout(std::size_t size) const
	{
		return got(bufpool_checkout(get(), size), "bufpool_checkout");
	}
	std::optional<buffer> checkout(std::nothrow_t,
				       std::size_t size) const noexcept
	{
		return got(bufpool_checkout(get(), size));
	}

	buffer checkout_zeroed(std::size_t size) const
	{
		return got(bufpool_checkout_zeroed(get(), size),
			   "bufpool_checkout_zeroed");
	}
	std::optional<buffer> checkout_zeroed(std::nothrow_t,
					      std::size_t size) const noexcept
	{
		return got(bufpool_checkout_zeroed(get(), size));
	}

	buffer checkout_aligned(std::size_t size, std::size_t alignment) const
	{
		return got(bufpool_checkout_aligned(get(), size, alignment),
			   "bufpool_checkout_aligned");
	}
	std::optional<buffer>
	checkout_aligned(std::nothrow_t, std::size_t size,
			 std::size_t alignment) const noexcept
	{
		return got(bufpool_checkout_aligned(get(), size, alignment));
	}

	/* Pool memory or ENOBUFS.  Errors are told as by the others. */
	buffer try_checkout(std::size_t size) const
	{
		return got(bufpool_try_checkout(get(), size),
			   "bufpool_try_checkout");
	}
	std::optional<buffer> try_checkout(std::nothrow_t,
					   std::size_t size) const noexcept
	{
		return got(bufpool_try_checkout(get(), size));
	}

	/* For ever, or until a timeout, which may be of any unit. */
	buffer checkout_wait(std::size_t size) const
	{
		return got(bufpool_checkout_wait(get(), size, nullptr),
			   "bufpool_checkout_wait");
	}
	std::optional<buffer> checkout_wait(std::nothrow_t,
					    std::size_t size) const noexcept
	{
		return got(bufpool_checkout_wait(get(), size, nullptr));
	}
	template <class Rep, class Period>
	buffer checkout_wait(std::size_t size,
			     std::chrono::duration<Rep, Period> timeout) const
	{
		return got(wait(size, detail::relative(timeout)),
			   "bufpool_checkout_wait");
	}
	template <class Rep, class Period>
	std::optional<buffer>
	checkout_wait(std::nothrow_t, std::size_t size,
		      std::chrono::duration<Rep, Period> timeout) const noexcept
	{
		return got(wait(size, detail::relative(timeout)));
	}

private:
	static buffer got(bufpool_buf_t *buf, const char *call)
	{
		return detail::made<buffer>(buf, call);
	}
	static std::optional<buffer> got(bufpool_buf_t *buf) noexcept
	{
		return detail::made<buffer>(std::nothrow, buf);
	}

	bufpool_buf_t *wait(std::size_t size,
			    const timespec &timeout) const noexcept
	{
		return bufpool_checkout_wait(get(), size, &timeout);
	}
};

/* --------------------------------------------------------- memory resources */

#ifdef __cpp_lib_memory_resource

/*
 * Memory for the containers of std::pmr, each piece a buffer: from the pool while
 * its class has one that is idle, else, and above the largest class, from the
 * upstream.  Nothing is from the pool's own heap, whatever its `exhausted` says, and
 * nothing is kept beside the memory: what lies in the pool's goes back there,
 * erased, all else to the upstream, as it is.
 *
 * A piece takes a whole buffer, so it is for few and large ones: large vectors, and
 * the upstream of std::pmr::unsynchronized_pool_resource and its like, which cut
 * small ones.
 *
 * The pool may be moved, but has to be there until all memory is given back, unlike
 * for buffers.  The upstream's memory must not lie in buffers of the same pool.
 * Safe for all threads if the upstream is.  Leaves errno alone, if that does.
 */
class memory_resource : public std::pmr::memory_resource
{
public:
	explicit memory_resource(const pool &from,
				 std::pmr::memory_resource *upstream =
					 std::pmr::get_default_resource()) noexcept
		: pool_(from.get()), upstream_(upstream)
	{
	}

	std::pmr::memory_resource *upstream_resource() const noexcept
	{
		return upstream_;
	}

private:
	void *do_allocate(std::size_t size, std::size_t alignment) override
	{
		const int saved = errno;
		/* Classes are aligned to their size, most of them. */
		buffer buf(bufpool_try_checkout(pool_, std::max(size, alignment)));

		errno = saved;
		if (buf && is_aligned(buf.data(), alignment))
			return buf.release()->data;
		buf.reset();
		return upstream_->allocate(size, alignment);
	}

	void do_deallocate(void *p, std::size_t size,
			   std::size_t alignment) override
	{
		const int saved = errno;
		const buffer buf(bufpool_buf_at(pool_, p));

		errno = saved;
		if (!buf)
			upstream_->deallocate(p, size, alignment);
	}

	bool do_is_equal(const std::pmr::memory_resource &other)
		const noexcept override
	{
		return this == &other;
	}

	static bool is_aligned(const void *p, std::size_t alignment) noexcept
	{
		return reinterpret_cast<std::uintptr_t>(p) % alignment == 0;
	}

	bufpool_t *pool_;
	std::pmr::memory_resource *upstream_;
};

#endif

} // namespace bufpool

#endif /* BUFPOOL_HPP */
