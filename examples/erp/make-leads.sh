#!/bin/bash
# make-leads.sh [N]: prints a CSV of N leads (1,000) of three companies, always
# the same ones: awk's own generator differs between awks, so this has its own
# (Park and Miller's, whose products a double holds exactly).  Used by demo.sh.
LC_ALL=C awk -v n="${1:-1000}" '
function random(below) { seed = (seed * 16807) % 2147483647; return int(seed / 2147483647 * below) }
BEGIN {
	seed = 20261123
	split("Ana Bruno Carla Diego Elisa Fábio Gabriela Heitor Iara João Karina Lucas Marina Nelson Olívia Paulo", first, " ")
	split("Silva Souza Costa Santos Oliveira Pereira Lima Carvalho Ferreira Ribeiro", last, " ")
	split("aurora boreal cerrado", company, " ")
	split("site whatsapp instagram indicação", source, " ")
	print "company_id,name,phone,source,value"
	for (i = 1; i <= n; i++) {
		phone = ""
		if (random(10) < 8) {
			area = 11 + random(80); a = random(10000); b = random(10000)
			phone = sprintf("+55 %d 9%04d-%04d", area, a, b)
		}
		# one draw a statement: awks may evaluate the arguments of printf in any order
		c = random(3); f = random(16); l = random(10); s = random(4); reais = random(9900); cents = random(100)
		printf "%s,%s %s,%s,%s,%d.%02d\n", company[1 + c], first[1 + f], last[1 + l], phone, source[1 + s], 100 + reais, cents
	}
}'
