# SPDX-License-Identifier: MIT
# plots.gp - pictures of what "make bench" measured
#
#     gnuplot -e "results='results.tsv'; out='./'" plots.gp
#
# A point is a median, its bar goes from the first to the third quartile.
set terminal svg size 800,500 font 'sans-serif,13' background rgb 'white'
set datafile separator "\t"
set datafile missing NaN # so that a line goes past other rows
set key outside right top
set grid ytics lc rgb '#dddddd'
set logscale y
set style data yerrorlines

# Columns: case, size, n, peer, value, unit, median, q1, q3.
peers = 'bufpool rte_mempool tcmalloc mimalloc jemalloc glibc apr ck_ring bare'
wanted(case, peer) = strcol(1) eq case && strcol(4) eq peer
have(case, peer) = int(system(sprintf("awk -F '\t' '$1 == \"%s\" && $4 == \"%s\"' '%s' | wc -l", case, peer, results))) > 0
present(case) = system(sprintf("for p in %s; do awk -F '\t' -v p=$p '$1 == \"%s\" && $4 == p { print p; exit }' '%s'; done", peers, case, results))
look(peer) = peer eq 'bufpool' ? 3 : 1

# curves(case, x): one for each peer that took part.
do for [case in 'pair pair-wiped handover handover-wiped'] {
	list = present(case)
	if (words(list) > 0) {
		set output out.case.'.svg'
		set title case.': time per buffer'
		set ylabel 'ns'
		set xlabel 'bytes of a buffer'
		set logscale x 2
		set xrange [3000:1.5e6]
		set xtics ('4 KiB' 4096, '64 KiB' 65536, '256 KiB' 262144, '1 MiB' 1048576)
		plot for [peer in list] results using \
			(wanted(case, peer) ? column(2) : NaN):7:8:9 \
			title peer noenhanced lw look(peer) pt 7 ps 0.5
	}
}

set xrange [*:*]
set xtics auto
do for [case in 'threads count pools pools-cycle'] {
	list = present(case).' bufpool-nocache'
	if (words(present(case)) > 0) {
		set output out.case.'.svg'
		set title case.': time per pair, all threads together'
		set xlabel case eq 'threads' ? 'threads' : case eq 'count' ? 'buffers in the pool' : 'pools'
		set logscale x case eq 'threads' ? 2 : 10
		plot for [peer in list] results using \
			(wanted(case, peer) ? column(3) : NaN):7:8:9 \
			title peer noenhanced lw look(peer) pt 7 ps 0.5
	}
}
