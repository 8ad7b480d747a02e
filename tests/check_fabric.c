/* SPDX-License-Identifier: MIT */
/*
 * check_fabric.c - a pool's regions are what libfabric wants to have registered
 *
 * Two processes exchange pool buffers of all classes, by messages and by remote
 * reads and writes, over each of libfabric's providers that works on any
 * machine.  They differ in how they name remote memory: by its address, or by
 * its offset in the registered region.
 */
#include "common.h"

#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <sys/socket.h>

/* The last is a message provider below a layer that makes datagrams of it. */
static const char *const providers[] = { "shm", "sockets", "tcp;ofi_rxm" };

#define EACH 3 /* buffers of each class and purpose: most not at offset 0 */
#define BUFS (EACH * BUFPOOL_CLASSES)

/* One of the two processes. */
struct side {
	int number;
	int other; /* a socket to the other one, for all that is not tested */
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	fi_addr_t peer;
	uint64_t done; /* operations that are complete */
	bufpool_t *pool;
	bufpool_region_t regions[BUFPOOL_CLASSES];
	int attached; /* of them */
};

/* Where the other process may read or write. */
struct remote {
	uint64_t address, key;
};

/* ----------------------------------------------------------------- progress */

/* Libfabric works only while it is asked how far it has come.  The other
   process may well need the CPU that we are on. */
static void progress(struct side *s)
{
	struct fi_cq_err_entry error = { 0 };
	struct fi_cq_entry entry;
	ssize_t n = fi_cq_read(s->cq, &entry, 1);

	if (n == -FI_EAVAIL) {
		fi_cq_readerr(s->cq, &error, 0);
		fprintf(stderr, "operation failed: %s\n",
		        fi_strerror(error.err));
	}
	must(n == 1 || n == -FI_EAGAIN);
	if (n == 1)
		s->done++;
	else
		sched_yield();
}

static void wait_for(struct side *s, uint64_t done)
{
	while (s->done < done)
		progress(s);
	must(s->done == done);
}

/* Start an operation, which may have to wait for room. */
#define START(s, operation)                                                    \
	do {                                                                   \
		ssize_t rc_;                                                   \
		while ((rc_ = (operation)) == -FI_EAGAIN)                      \
			progress(s);                                           \
		must(rc_ == 0);                                                \
	} while (0)

/* Tell the other process something, and hear the same sort of thing: neither
   goes on before both have come here. */
static void swap(struct side *s, const void *mine, void *its, size_t n)
{
	struct pollfd ready = { .fd = s->other, .events = POLLIN };

	must(send(s->other, mine, n, MSG_NOSIGNAL) == (ssize_t) n);
	while (poll(&ready, 1, 0) == 0)
		progress(s);
	must(recv(s->other, its, n, 0) == (ssize_t) n);
}

static void meet_other(struct side *s)
{
	char word = 'x';

	swap(s, &word, &word, 1);
}

/* --------------------------------------------------------- registered memory */

static void *attach(void *arg, const bufpool_region_t *region)
{
	struct side *s = arg;
	struct fid_mr *mr;
	int rc = fi_mr_reg(s->domain, region->base, region->len,
	                   FI_SEND | FI_RECV | FI_READ | FI_WRITE |
	                           FI_REMOTE_READ | FI_REMOTE_WRITE,
	                   0, 100 + region->index, 0, &mr, NULL);

	if (rc != 0) {
		errno = -rc;
		return BUFPOOL_ATTACH_FAILED;
	}
	s->attached++;
	return mr;
}

static void detach(void *arg, const bufpool_region_t *region, void *cookie)
{
	struct side *s = arg;
	struct fid_mr *mr = cookie;

	must(fi_mr_key(mr) != FI_KEY_NOTAVAIL);
	must(region->cookie == cookie);
	must(is_mapped(region->base)); /* a card may still be at work */
	must(fi_close(&mr->fid) == 0);
	s->attached--;
}

static const bufpool_region_t *
region_of(struct side *s, const bufpool_buf_t *buf, size_t *offset)
{
	unsigned index;

	must(bufpool_buf_region(buf, &index, offset) == 0);
	must(index < BUFPOOL_CLASSES && s->regions[index].index == index);
	return &s->regions[index];
}

static void *desc_of(struct side *s, const bufpool_buf_t *buf)
{
	return fi_mr_desc(region_of(s, buf, NULL)->cookie);
}

static struct remote remote_of(struct side *s, const bufpool_buf_t *buf)
{
	size_t offset;
	const bufpool_region_t *region = region_of(s, buf, &offset);
	struct remote remote = { offset, fi_mr_key(region->cookie) };

	if ((s->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0)
		remote.address += (uintptr_t) region->base;
	return remote;
}

/* ------------------------------------------------------------------ buffers */

/* Bytes that tell whose buffer it was, which, and where in it they were. */
static void write_text(bufpool_buf_t *buf, int side, unsigned which)
{
	uint64_t seed = (uint64_t) side << 32 | (which + 1), *words = buf->data;

	for (size_t i = 0; i < buf->capacity / sizeof(*words); i++)
		words[i] = draw(&seed);
}

/* That text, in the first len bytes; nothing in those that follow. */
static bool has_text(const bufpool_buf_t *buf, int side, unsigned which,
                     size_t len)
{
	bufpool_buf_t copy = *buf;
	bool same;

	copy.data = malloc(buf->capacity);
	must(copy.data);
	write_text(&copy, side, which);
	same = memcmp(buf->data, copy.data, len) == 0 &&
	       all_bytes((char *) buf->data + len, buf->capacity - len, 0);
	free(copy.data);
	return same;
}

/* How much of a buffer travels: all of it, or an odd part. */
static size_t part(const bufpool_buf_t *buf, unsigned which)
{
	return which % EACH == 0 ? buf->capacity : buf->capacity / 3 + which;
}

static void take_all(struct side *s, bufpool_buf_t **bufs)
{
	for (unsigned i = 0; i < BUFS; i++) {
		bufs[i] = bufpool_try_checkout(s->pool, classes[i / EACH].size);
		must(bufs[i]);
	}
}

static void take_texts(struct side *s, bufpool_buf_t **bufs)
{
	take_all(s, bufs);
	for (unsigned i = 0; i < BUFS; i++)
		write_text(bufs[i], s->number, i);
}

/* What came from the other process, and what did not. */
static void must_have_its_texts(struct side *s, bufpool_buf_t **bufs)
{
	for (unsigned i = 0; i < BUFS; i++)
		must(has_text(bufs[i], !s->number, i, part(bufs[i], i)));
}

/* ---------------------------------------------------------------- exchanges */

static void exchange_messages(struct side *s)
{
	bufpool_buf_t *from[BUFS], *to[BUFS];
	uint64_t done = s->done;

	take_texts(s, from);
	take_all(s, to);
	for (unsigned i = 0; i < BUFS; i++) {
		START(s, fi_recv(s->ep, to[i]->data, part(to[i], i),
		                 desc_of(s, to[i]), s->peer, NULL));
		START(s, fi_send(s->ep, from[i]->data, part(from[i], i),
		                 desc_of(s, from[i]), s->peer, NULL));
	}
	wait_for(s, done + 2 * BUFS);
	must_have_its_texts(s, to);
	meet_other(s);
	bufpool_return_bulk(from, BUFS);
	bufpool_return_bulk(to, BUFS);
}

static void swap_remotes(struct side *s, bufpool_buf_t **bufs,
                         struct remote *its)
{
	struct remote mine[BUFS];

	for (unsigned i = 0; i < BUFS; i++)
		mine[i] = remote_of(s, bufs[i]);
	swap(s, mine, its, sizeof(mine));
}

static void write_remotely(struct side *s)
{
	bufpool_buf_t *from[BUFS], *to[BUFS];
	struct remote its[BUFS];
	uint64_t done = s->done;

	take_texts(s, from);
	take_all(s, to);
	swap_remotes(s, to, its);
	for (unsigned i = 0; i < BUFS; i++)
		START(s, fi_write(s->ep, from[i]->data, part(from[i], i),
		                  desc_of(s, from[i]), s->peer, its[i].address,
		                  its[i].key, NULL));
	wait_for(s, done + BUFS);
	meet_other(s); /* now it has written too */
	must_have_its_texts(s, to);
	bufpool_return_bulk(from, BUFS);
	bufpool_return_bulk(to, BUFS);
}

static void read_remotely(struct side *s)
{
	bufpool_buf_t *from[BUFS], *to[BUFS];
	struct remote its[BUFS];
	uint64_t done = s->done;

	take_texts(s, from);
	take_all(s, to);
	swap_remotes(s, from, its);
	for (unsigned i = 0; i < BUFS; i++)
		START(s, fi_read(s->ep, to[i]->data, part(to[i], i),
		                 desc_of(s, to[i]), s->peer, its[i].address,
		                 its[i].key, NULL));
	wait_for(s, done + BUFS);
	must_have_its_texts(s, to);
	meet_other(s); /* it needs ours no more */
	bufpool_return_bulk(from, BUFS);
	bufpool_return_bulk(to, BUFS);
}

/* ---------------------------------------------------------------- the fabric */

/* What a provider offers that is what we need; NULL if it is not there. */
static struct fi_info *find(const char *provider)
{
	struct fi_info *hints = fi_allocinfo(), *info = NULL;
	/* Shared memory takes it for a name, which only one can have. */
	const char *node = strcmp(provider, "shm") == 0 ? NULL : "127.0.0.1";

	must(hints);
	hints->fabric_attr->prov_name = strdup(provider);
	hints->caps = FI_MSG | FI_RMA;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_ALLOCATED |
	                              FI_MR_VIRT_ADDR | FI_MR_PROV_KEY;
	/* Complete is what has arrived, and not what has been sent. */
	hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
	if (fi_getinfo(FI_VERSION(1, 5), node, NULL,
	               node != NULL ? FI_SOURCE : 0, hints, &info) != 0)
		info = NULL;
	fi_freeinfo(hints);
	return info;
}

static void open_fabric(struct side *s)
{
	struct fi_av_attr av = { .type = FI_AV_TABLE, .count = 2 };
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_CONTEXT, .size = 256 };
	char mine[256], its[256];
	size_t len = sizeof(mine);

	memset(mine, 0, sizeof(mine));
	must(fi_fabric(s->info->fabric_attr, &s->fabric, NULL) == 0);
	must(fi_domain(s->fabric, s->info, &s->domain, NULL) == 0);
	must(fi_av_open(s->domain, &av, &s->av, NULL) == 0);
	must(fi_cq_open(s->domain, &cq, &s->cq, NULL) == 0);
	must(fi_endpoint(s->domain, s->info, &s->ep, NULL) == 0);
	must(fi_ep_bind(s->ep, &s->av->fid, 0) == 0);
	must(fi_ep_bind(s->ep, &s->cq->fid, FI_TRANSMIT | FI_RECV) == 0);
	must(fi_enable(s->ep) == 0);
	must(fi_getname(&s->ep->fid, mine, &len) == 0);
	swap(s, mine, its, sizeof(mine));
	must(fi_av_insert(s->av, its, 1, &s->peer, 0, NULL) == 1);
}

/* A domain does not close (EBUSY) while anything is registered with it. */
static void close_fabric(struct side *s)
{
	must(fi_close(&s->ep->fid) == 0);
	must(fi_close(&s->cq->fid) == 0);
	must(fi_close(&s->av->fid) == 0);
	must(fi_close(&s->domain->fid) == 0);
	must(fi_close(&s->fabric->fid) == 0);
	fi_freeinfo(s->info);
}

static void run_side(struct side *s, const char *provider)
{
	bufpool_config_t config = even_config(2 * EACH);

	s->info = find(provider);
	must(s->info);
	open_fabric(s);
	config.region_attach = attach;
	config.region_detach = detach;
	config.region_arg = s;
	s->pool = make_pool(config);
	must(s->attached == BUFPOOL_CLASSES);
	must(bufpool_regions(s->pool, s->regions, BUFPOOL_CLASSES) ==
	     BUFPOOL_CLASSES);

	/* The second time in buffers that have been used. */
	for (int i = 0; i < 2; i++) {
		exchange_messages(s);
		write_remotely(s);
		read_remotely(s);
	}
	must_be_whole(s->pool);
	meet_other(s);

	bufpool_destroy(s->pool);
	must(s->attached == 0);
	close_fabric(s);
}

/* Whether a provider is there; asked in a process of its own, as libfabric is
   not for processes that fork later. */
static bool is_there(const char *provider)
{
	pid_t child = fork();
	int status;

	must(child >= 0);
	if (child == 0)
		_exit(find(provider) == NULL);
	must(waitpid(child, &status, 0) == child);
	must(WIFEXITED(status));
	return WEXITSTATUS(status) == 0;
}

static bool there[ARRAY_SIZE(providers)];

START_TEST(pool_buffers_travel)
{
	const char *provider = providers[_i];
	struct side s = { 0 };
	int ends[2], status;
	pid_t child;

	if (!there[_i])
		return;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
	child = fork();
	must(child >= 0);
	s.number = child == 0;
	s.other = ends[s.number];
	close(ends[!s.number]); /* its end is the other's end: no hang */
	run_side(&s, provider);
	if (child == 0)
		_exit(0);
	must(waitpid(child, &status, 0) == child);
	ck_assert_msg(status == 0, "%s: wait status %#x", provider,
	              (unsigned) status);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fabric");
	TCase *tcase = add_case(suite, "exchange", 20);
	bool any = false;

	/* Not to look for what is not used. */
	setenv("FI_PROVIDER", "shm,sockets,tcp,ofi_rxm", 1);
	for (size_t i = 0; i < ARRAY_SIZE(providers); i++) {
		there[i] = is_there(providers[i]);
		any = any || there[i];
		if (!there[i])
			printf("skipped: libfabric has no provider %s here\n",
			       providers[i]);
	}
	if (!any)
		return 77;
	tcase_add_loop_test(tcase, pool_buffers_travel, 0,
	                    ARRAY_SIZE(providers));
	return run_suite(suite);
}
