# SPDX-License-Identifier: MIT
# plots.gp - pictures of what "make bench" measured, one for each of some cases
#
#     gnuplot -e "results='results.tsv'; out='./'" plots.gp
#
# A point is a median, its bar goes from the first to the third quartile.
set terminal svg size 800,500 font 'sans-serif,13' background rgb 'white'
set datafile separator "\t"
set datafile missing NaN # a line goes past the rows that are not its own
set key outside right top
set grid ytics lc rgb '#dddddd'
set logscale y
set style data yerrorlines
ns = 'ns (lower is better)'
per_kib = 'ns per KiB (lower is better)'

# The columns: case, size, n, peer, value, unit, median, q1, q3.

# Each peer has its colour and its mark in all plots.  Who cannot tell two colours
# apart has the marks; those of no pool at all are dashed.
peers   = 'bufpool bufpool-inline bufpool-local bufpool-nocache bufpool-hardened rte_mempool tcmalloc mimalloc jemalloc glibc   apr     ck_ring floor   bare    stores-32 stores-64 stosb'
colours = '#000000 #0072b2        #56b4e9       #332288         #661100         #d55e00     #009e73  #e69f00  #cc79a7  #882255 #999933 #7f5f00 #777777 #444444 #aa4499   #117733   #bb5566'
marks   = '7       5              6             4               6               9           13       11       8        10      12      15      14      2       1         3         14'
number(peer) = sum [i = 1:words(peers)] (word(peers, i) eq peer ? i : 0)
colour(peer) = word(colours, number(peer))
mark(peer) = int(word(marks, number(peer)))
width(peer) = peer eq 'bufpool' || peer eq 'bufpool-inline' ? 3 : 1
dashes(peer) = number(peer) >= number('floor') ? 2 : 1

# Those that took part in a case.
present(case) = system(sprintf("for p in %s; do awk -F '\t' -v p=$p '$1 == \"%s\" && $4 == p { print p; exit }' '%s'; done", peers, case, results))
# x in the rows of a case and peer, nothing in others.
at(x, case, peer) = strcol(1) eq case && strcol(4) eq peer ? x : NaN

set logscale x 2
set xlabel 'bytes of a buffer'
set xrange [3000:1.5e6]
set xtics ('4 KiB' 4096, '64 KiB' 65536, '256 KiB' 262144, '1 MiB' 1048576)
do for [case in 'pair pair-wiped handover handover-wiped'] {
	list = present(case)
	if (words(list) > 0) {
		set output out.case.'.svg'
		# Where the bytes are erased they are what takes the time.
		erased = case[strlen(case) - 4:*] eq 'wiped'
		unit(size) = erased ? size / 1024. : 1
		set ylabel erased ? per_kib : ns
		set title case.': time per '.(erased ? 'KiB of a buffer' : 'buffer')
		plot for [peer in list] results \
			using (at(column(2), case, peer)):($7 / unit($2)):($8 / unit($2)):($9 / unit($2)) \
			title peer noenhanced lw width(peer) dt dashes(peer) \
			lc rgb colour(peer) pt mark(peer) ps 0.7
	}
}

set ylabel ns
set xrange [*:*]
set xtics auto
do for [case in 'threads count pools pools-cycle'] {
	list = present(case)
	if (words(list) > 0) {
		set output out.case.'.svg'
		set title case.': time over all pairs'
		set xlabel case eq 'threads' ? case : case eq 'count' ? 'buffers in the pool' : 'pools'
		set logscale x (case eq 'threads' ? 2 : 10)
		plot for [peer in list] results \
			using (at(column(3), case, peer)):7:8:9 \
			title peer noenhanced lw width(peer) dt dashes(peer) \
			lc rgb colour(peer) pt mark(peer) ps 0.7
	}
}

# The x axis is how rare: 1 in 2, 10, 100 and so on.
rank(value) = (strstrt('p50     p90     p99     p99.9   p99.99  max', value) + 7) / 8
case = 'latency'
list = present(case)
unset logscale x
set xlabel 'quantile'
set xrange [0.5:6.5]
set xtics ('50 %%' 1, '90 %%' 2, '99 %%' 3, '99.9 %%' 4, '99.99 %%' 5, 'max' 6)
do for [burst in '8 32'] {
	if (words(list) > 0) {
		set output out.case.'-'.burst.'.svg'
		set title 'latency of a take, 32 threads on two CPUs, bursts of '.burst
		plot for [peer in list] results \
			using (strcol(3) eq burst ? at(rank(strcol(5)), case, peer) : NaN):7:8:9 \
			title peer noenhanced lw width(peer) dt dashes(peer) \
			lc rgb colour(peer) pt mark(peer) ps 0.7
	}
}
