# SPDX-License-Identifier: MIT
# BUFPOOL_CFLAGS_IF_TAKEN(VARIABLE, FLAGS), BUFPOOL_LDFLAGS_IF_TAKEN(...)
#
# Append to VARIABLE those of FLAGS that the compiler, or the linker through
# it, takes.  With -Werror, since clang only warns of options it does not know.
AC_DEFUN([BUFPOOL_CFLAGS_IF_TAKEN],
  [_BUFPOOL_FLAGS_IF_TAKEN([$1], [$2], [CFLAGS], [AC_COMPILE_IFELSE])])
AC_DEFUN([BUFPOOL_LDFLAGS_IF_TAKEN],
  [_BUFPOOL_FLAGS_IF_TAKEN([$1], [$2], [LDFLAGS], [AC_LINK_IFELSE])])

AC_DEFUN([_BUFPOOL_FLAGS_IF_TAKEN], [
bufpool_saved_CFLAGS=$CFLAGS
bufpool_saved_$3=$$3
for bufpool_flag in $2; do
  AC_MSG_CHECKING([whether $CC takes $bufpool_flag])
  CFLAGS="$bufpool_saved_CFLAGS -Werror"
  $3="$$3 $bufpool_flag"
  $4([AC_LANG_PROGRAM()],
    [AC_MSG_RESULT([yes])
     $1="$$1${$1:+ }$bufpool_flag"],
    [AC_MSG_RESULT([no])])
  $3=$bufpool_saved_$3
done
CFLAGS=$bufpool_saved_CFLAGS
])
