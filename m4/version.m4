# SPDX-License-Identifier: MIT
# All version numbers, in this one place.

# The package: what bufpool_version(), BUFPOOL_VERSION_NUM and bufpool.pc say.
m4_define([bufpool_version_major], [0])
m4_define([bufpool_version_minor], [1])
m4_define([bufpool_version_patch], [0])

# The shared library's interface, which has nothing to do with the package
# version.  For a release that changed the code only, revision + 1; that added
# to the interface, current + 1, revision 0, age + 1; that changed or removed
# some of it, current + 1, revision 0, age 0.
m4_define([bufpool_libtool_current], [0])
m4_define([bufpool_libtool_revision], [0])
m4_define([bufpool_libtool_age], [0])

# What follows from them.
m4_define([bufpool_version],
  bufpool_version_major.bufpool_version_minor.bufpool_version_patch)
m4_define([bufpool_version_num], m4_format([0x%02x%02x%02x],
  bufpool_version_major, bufpool_version_minor, bufpool_version_patch))
m4_define([bufpool_libtool],
  bufpool_libtool_current:bufpool_libtool_revision:bufpool_libtool_age)
