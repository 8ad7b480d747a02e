/* SPDX-License-Identifier: MIT */
/* instructions.cc - for instructions.c, the operations of <bufpool.hpp> */
#include <bufpool.hpp>

namespace
{

/* A pool that is somebody else's: its end is left out. */
union borrowed {
	bufpool::pool pool;

	explicit borrowed(bufpool_t *p) : pool(p)
	{
	}
	~borrowed()
	{
	}
};

} // namespace

extern "C" void cxx_checked(bufpool_t *pool);

void cxx_checked(bufpool_t *pool)
{
	bufpool::buffer buf = borrowed(pool).pool.checkout(4096);
}
