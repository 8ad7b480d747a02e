# SPDX-License-Identifier: MIT
# BUFPOOL_PROG_CC_FOR_BUILD
#
# Find CC_FOR_BUILD, a compiler whose programs run on the machine that builds:
# the generator runs there, also when the library is for another CPU.  A native
# build takes $CC, less the sanitizers, which are meant for the library.
AC_DEFUN([BUFPOOL_PROG_CC_FOR_BUILD], [
AC_REQUIRE([AC_PROG_CC])
AC_REQUIRE([AC_PROG_SED])
AC_ARG_VAR([CC_FOR_BUILD], [C compiler for programs that run while building])
AC_ARG_VAR([CFLAGS_FOR_BUILD], [its flags])
AC_MSG_CHECKING([for a C compiler for the build machine])
if test -n "$CC_FOR_BUILD"; then
  bufpool_try=
elif test "$cross_compiling" = no; then
  CC_FOR_BUILD=`AS_ECHO(["$CC"]) | $SED 's/ *-fsanitize@<:@^ @:>@*//g'`
  bufpool_try=
else
  bufpool_try='gcc cc'
fi
AS_ECHO(['int main(void) { return 0; }']) >conftest.c
for CC_FOR_BUILD in ${bufpool_try:-"$CC_FOR_BUILD"}; do
  rm -f conftest.build
  # No quotes: it may have options.
  $CC_FOR_BUILD -o conftest.build conftest.c >&AS_MESSAGE_LOG_FD 2>&1 &&
    ./conftest.build && break
  CC_FOR_BUILD=
done
rm -f conftest.c conftest.build
AC_MSG_RESULT([${CC_FOR_BUILD:-none}])
AS_IF([test -z "$CC_FOR_BUILD"],
  [AC_MSG_ERROR([no compiler for the build machine; set CC_FOR_BUILD, or on Debian: apt-get install gcc])])
: ${CFLAGS_FOR_BUILD="-g -O2"}
])
