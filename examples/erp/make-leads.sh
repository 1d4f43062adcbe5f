#!/bin/bash
# make-leads.sh [N]: prints a CSV of N leads (1,000) of three companies, always
# the same ones: awk's own generator differs between awks, so this has its own.
# Used by demo.sh.
awk -v n="${1:-1000}" '
function random(below) { seed = (seed * 1103515245 + 12345) % 2147483648; return int(seed / 65536) % below }
BEGIN {
	seed = 20261123
	split("Ana Bruno Carla Diego Elisa Fábio Gabriela Heitor Iara João Karina Lucas Marina Nelson Olívia Paulo", first, " ")
	split("Silva Souza Costa Santos Oliveira Pereira Lima Carvalho Ferreira Ribeiro", last, " ")
	split("aurora boreal cerrado", company, " ")
	split("site whatsapp instagram indicação", source, " ")
	print "company_id,name,phone,source,value"
	for (i = 1; i <= n; i++) {
		phone = random(10) < 8 ? sprintf("+55 %d 9%04d-%04d", 11 + random(80), random(10000), random(10000)) : ""
		printf "%s,%s %s,%s,%s,%d.%02d\n", company[1 + random(3)], first[1 + random(16)], last[1 + random(10)], phone, source[1 + random(4)], 100 + random(9900), random(100)
	}
}'
