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
set ylabel 'ns'

# The columns: case, size, n, peer, value, unit, median, q1, q3.
peers = 'bufpool rte_mempool tcmalloc mimalloc jemalloc glibc apr ck_ring bufpool-nocache floor bare'

# Those that took part in a case.
present(case) = system(sprintf("for p in %s; do awk -F '\t' -v p=$p '$1 == \"%s\" && $4 == p { print p; exit }' '%s'; done", peers, case, results))
# x in the rows of a case and peer, nothing in others.
at(x, case, peer) = strcol(1) eq case && strcol(4) eq peer ? x : NaN
width(peer) = peer eq 'bufpool' ? 3 : 1

set logscale x 2
set xlabel 'bytes of a buffer'
set xrange [3000:1.5e6]
set xtics ('4 KiB' 4096, '64 KiB' 65536, '256 KiB' 262144, '1 MiB' 1048576)
do for [case in 'pair pair-wiped handover handover-wiped'] {
	list = present(case)
	if (words(list) > 0) {
		set output out.case.'.svg'
		set title case.': time per buffer'
		plot for [peer in list] results \
			using (at(column(2), case, peer)):7:8:9 \
			title peer noenhanced lw width(peer) pt 7 ps 0.5
	}
}

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
			title peer noenhanced lw width(peer) pt 7 ps 0.5
	}
}

# The x axis is how rare: 1 in 2, 10, 100 and so on.
rank(value) = (strstrt('p50     p90     p99     p99.9   p99.99  max', value) + 7) / 8
case = 'latency'
list = present(case)
if (words(list) > 0) {
	set output out.case.'.svg'
	set title 'latency of a take, 32 threads on two CPUs, bursts of 32'
	unset logscale x
	set xlabel 'quantile'
	set xrange [0.5:6.5]
	set xtics ('50 %%' 1, '90 %%' 2, '99 %%' 3, '99.9 %%' 4, '99.99 %%' 5, 'max' 6)
	plot for [peer in list] results \
		using (at(rank(strcol(5)), case, peer)):7:8:9 \
		title peer noenhanced lw width(peer) pt 7 ps 0.5
}
