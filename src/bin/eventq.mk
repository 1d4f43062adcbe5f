# eventq.mk: the program eventq, beside the library; included by the Makefile after PGXS,
# which can build a module or a program, not both.  Targets: eventq, install-eventq,
# uninstall-eventq, clean-eventq; all, install, uninstall and clean take them along
# (not with EVENTQ=no).
comma = ,
EVENTQ_BIN = src/bin/eventq
EVENTQ_ALL := $(sort $(wildcard src/bin/*.c))
SERVE_SOURCES := $(filter src/bin/serve%,$(EVENTQ_ALL))
TOP_SOURCES := $(filter src/bin/top%,$(EVENTQ_ALL))
WEBHOOK_SOURCES := $(filter src/bin/webhook%,$(EVENTQ_ALL))
EVENTQ_SOURCES := $(filter-out $(SERVE_SOURCES) $(TOP_SOURCES) $(WEBHOOK_SOURCES),$(EVENTQ_ALL))
EVENTQ_CPPFLAGS := -I$(shell $(PG_CONFIG) --includedir) -DEQ_VERSION='"$(EXTVERSION)"'
EVENTQ_LIBDIR := $(shell $(PG_CONFIG) --libdir)
EVENTQ_LIBS := -L$(EVENTQ_LIBDIR) $(if $(filter-out /usr/lib%,$(EVENTQ_LIBDIR)),-Wl$(comma)-rpath$(comma)$(EVENTQ_LIBDIR)) -lpq -lm
PKG_CONFIG ?= pkg-config
# NO_LIBEVENT=1, NO_NCURSES=1 and NO_LIBCURL=1 leave them out where they are there.
HAVE_LIBEVENT := $(if $(NO_LIBEVENT),,$(if $(SERVE_SOURCES),$(shell $(PKG_CONFIG) --exists libevent 2>/dev/null && echo yes)))
HAVE_NCURSES := $(if $(NO_NCURSES),,$(if $(TOP_SOURCES),$(shell $(PKG_CONFIG) --exists ncursesw 2>/dev/null && echo yes)))

HAVE_LIBCURL := $(if $(NO_LIBCURL),,$(if $(WEBHOOK_SOURCES),$(shell $(PKG_CONFIG) --exists 'libcurl >= 7.85' libcrypto 2>/dev/null && echo yes)))

ifeq ($(HAVE_LIBEVENT),yes)
EVENTQ_SOURCES += $(SERVE_SOURCES)
EVENTQ_CPPFLAGS += -DHAVE_LIBEVENT $(shell $(PKG_CONFIG) --cflags libevent)
EVENTQ_LIBS += $(shell $(PKG_CONFIG) --libs libevent)
# what serve builds of src/bin/web: objects to link (EVENTQ_OBJS +=) and their rules
-include src/bin/serve.mk
endif
ifeq ($(HAVE_NCURSES),yes)
EVENTQ_SOURCES += $(TOP_SOURCES)
EVENTQ_CPPFLAGS += -DHAVE_NCURSES $(shell $(PKG_CONFIG) --cflags ncursesw)
EVENTQ_LIBS += $(shell $(PKG_CONFIG) --libs ncursesw)
endif
ifeq ($(HAVE_LIBCURL),yes)
EVENTQ_SOURCES += $(WEBHOOK_SOURCES)
EVENTQ_CPPFLAGS += -DHAVE_LIBCURL $(shell $(PKG_CONFIG) --cflags libcurl libcrypto)
EVENTQ_LIBS += $(shell $(PKG_CONFIG) --libs libcurl libcrypto)
endif
EVENTQ_OBJS += $(EVENTQ_SOURCES:.c=.o)
EVENTQ_CFLAGS = $(CFLAGS) $(EVENTQ_CPPFLAGS)

# The flags, so that a library that comes or goes has the objects made anew
src/bin/eventq.flags: eventq-flags
	@echo '$(EVENTQ_CFLAGS)' | cmp -s - $@ || echo '$(EVENTQ_CFLAGS)' > $@

$(EVENTQ_SOURCES:.c=.o): src/bin/%.o: src/bin/%.c $(wildcard src/bin/*.h) src/bin/eventq.mk src/bin/eventq.flags
	$(CC) $(EVENTQ_CFLAGS) -c -o $@ $<

src/bin/doctor_expected.inc: src/bin/expected.pl $(SQL_PARTS)
	perl src/bin/expected.pl $(SQL_PARTS) > $@.tmp
	mv $@.tmp $@

src/bin/doctor_catalog.o: src/bin/doctor_expected.inc

$(EVENTQ_BIN): $(EVENTQ_OBJS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(EVENTQ_OBJS) $(EVENTQ_LIBS)
	@$(if $(HAVE_LIBEVENT),:,echo "eventq: built without the verb serve, which needs libevent (libevent-dev)")
	@$(if $(HAVE_LIBCURL),:,echo "eventq: built without the verb webhook, which needs libcurl and libcrypto (libcurl4-openssl-dev, libssl-dev)")
	@$(if $(HAVE_NCURSES),:,echo "eventq: built without the verb top, which needs ncurses (libncurses-dev)")

eventq: $(EVENTQ_BIN)

install-eventq: $(EVENTQ_BIN)
	$(MKDIR_P) '$(DESTDIR)$(bindir)'
	$(INSTALL_PROGRAM) $(EVENTQ_BIN) '$(DESTDIR)$(bindir)/eventq'
	$(MKDIR_P) '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_DATA) src/bin/eventq.1 '$(DESTDIR)$(mandir)/man1/eventq.1'

uninstall-eventq:
	rm -f '$(DESTDIR)$(bindir)/eventq' '$(DESTDIR)$(mandir)/man1/eventq.1'

clean-eventq:
	rm -f $(EVENTQ_BIN) src/bin/*.o src/bin/*.gcda src/bin/*.gcno src/bin/eventq.flags src/bin/doctor_expected.inc

.PHONY: eventq eventq-flags install-eventq uninstall-eventq clean-eventq

ifneq ($(EVENTQ),no)
all: eventq
install: install-eventq
uninstall: uninstall-eventq
endif
clean: clean-eventq
