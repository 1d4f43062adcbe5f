-- National holidays of Brazil, those that move with Easter among them; for a calendar of
-- event_queue:
--   SELECT event_queue.create_calendar('br', 'America/Sao_Paulo', if_not_exists => true);
--   SELECT event_queue.add_holidays('br', ARRAY(SELECT day FROM holidays_br(2026) UNION SELECT day FROM holidays_br(2027)));

-- Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher).
CREATE FUNCTION easter(year int) RETURNS date LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
	a int := year % 19;
	b int := year / 100;
	c int := year % 100;
	h int := (19 * a + b - b / 4 - (b - (b + 8) / 25 + 1) / 3 + 15) % 30;
	l int := (32 + 2 * (b % 4) + 2 * (c / 4) - h - c % 4) % 7;
	m int := (a + 11 * h + 22 * l) / 451;
BEGIN
	RETURN make_date(year, (h + l - 7 * m + 114) / 31, (h + l - 7 * m + 114) % 31 + 1);
END
$$;

CREATE FUNCTION holidays_br(year int) RETURNS TABLE (day date, name text) LANGUAGE sql IMMUTABLE STRICT AS $$
	SELECT make_date(year, m, d), n FROM (VALUES (1, 1, 'Confraternização Universal'), (4, 21, 'Tiradentes'), (5, 1, 'Dia do Trabalho'),
		(9, 7, 'Independência'), (10, 12, 'Nossa Senhora Aparecida'), (11, 2, 'Finados'), (11, 15, 'Proclamação da República'),
		(11, 20, 'Consciência Negra'), (12, 25, 'Natal')) x (m, d, n)
	UNION ALL
	SELECT public.easter(year) + d, n FROM (VALUES (-48, 'Carnaval'), (-47, 'Carnaval'), (-2, 'Paixão de Cristo'), (60, 'Corpus Christi')) x (d, n)
	ORDER BY 1
$$;
