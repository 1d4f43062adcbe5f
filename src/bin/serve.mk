# serve.mk: the dashboard's files, made into an object of eventq; included by eventq.mk if
# libevent is there.  CHART_JS is Chart.js (libjs-chart.js); without it the page draws
# simpler charts by itself.
CHART_JS ?= $(firstword $(wildcard /usr/share/javascript/chart.js/chart.min.js))
WEB_FILES = $(sort $(wildcard src/bin/web/*.html src/bin/web/*.css src/bin/web/*.js src/bin/web/*.svg src/bin/web/*/*.js))
EVENTQ_OBJS += src/bin/web/assets.o

# Which Chart.js, so that one that comes or goes has it made anew
src/bin/web/assets.from: eventq-flags
	@echo '$(CHART_JS)' | cmp -s - $@ || echo '$(CHART_JS)' > $@

src/bin/web/assets.inc: src/bin/embed.pl src/bin/serve.mk $(WEB_FILES) $(CHART_JS) src/bin/web/assets.from
	perl src/bin/embed.pl src/bin/web $(CHART_JS) > $@.tmp
	mv $@.tmp $@

src/bin/web/assets.o: src/bin/web/assets.inc src/bin/serve.h
	$(CC) $(EVENTQ_CFLAGS) -x c -c -o $@ $<

clean-eventq: clean-assets
clean-assets:
	rm -f src/bin/web/assets.inc src/bin/web/assets.from src/bin/web/assets.o
.PHONY: clean-assets
