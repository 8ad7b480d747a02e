# bufpool.m4 - find libbufpool from a configure script         -*- Autoconf -*-
# SPDX-License-Identifier: MIT
#
# BUFPOOL_CHECK([MINIMUM-VERSION], [ACTION-IF-FOUND], [ACTION-IF-NOT-FOUND])
#
# Look for libbufpool with pkg-config, at least MINIMUM-VERSION if given, and
# set and substitute BUFPOOL_CFLAGS and BUFPOOL_LIBS.  Without
# ACTION-IF-NOT-FOUND, not finding it is an error.
AC_DEFUN([BUFPOOL_CHECK],
[PKG_CHECK_MODULES([BUFPOOL], [bufpool]m4_ifval([$1], [[ >= $1]]),
  [$2], [$3])])
