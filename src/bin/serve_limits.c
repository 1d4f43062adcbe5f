/*
 * serve_limits.c: limits attempts to sign in to "eventq serve".
 *
 * Refused attempts are counted for the role at the address, for the address, and for the
 * role, and decay over time.  The first limit is for everyone.  The other two do not apply
 * to a role that has signed in from this address before: so an attacker who guesses, with
 * many names or from many addresses, does not lock out the regular users.  Likewise, some of
 * the concurrent sign-ins that ask the database are reserved for them.
 *
 * All tables have a fixed size, and a look-up takes a fixed number of steps.
 */
#include <string.h>
#include <time.h>

#include "serve.h"

#define WAYS	   8   /* places in which a key may be */
#define SETS	   256 /* power of two */
#define MAX_KNOWN  1024
#define MAX_PLACES 6 /* of those who are not known, at a time */
#define KEPT	   4 /* more places, for those who are */
#define OF_PAIR	   2 /* places of one role from one address */
#define MAX_HELD   64
#define OF_ADDRESS 16 /* of those held */

/* What has been refused to a key: goes down with time */
typedef struct Count
{
	uint64_t key;
	double count;
	time_t at;
} Count;

typedef struct Counts
{
	double most;
	double forget; /* in a second */
	Count counts[SETS][WAYS];
} Counts;

static Counts of_pairs = {.most = 5, .forget = 0.5};
static Counts of_addresses = {.most = 20, .forget = 1};
static Counts of_roles = {.most = 50, .forget = 1};
static uint64_t known[MAX_KNOWN];
static unsigned int next_known = 0;
static SignIn places[MAX_PLACES + KEPT];
static int places_count = 0;
static uint64_t held[MAX_HELD];
static int held_count = 0;

/*
 * limit_key: a hash that nobody outside can foresee, so that no keys can be chosen
 * that fall together.
 */
uint64_t
limit_key(const char *what, const void *bytes, size_t length)
{
	static uint64_t seed[2] = {0, 0};
	uint64_t hash;

	if (seed[0] == 0)
		random_bytes(seed, sizeof(seed));
	hash = seed[0];
	for (const char *p = what; *p; p++)
		hash = (hash ^ (unsigned char) *p) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < length; i++)
	{
		hash = (hash ^ ((const unsigned char *) bytes)[i]) * UINT64_C(0x100000001b3);
		hash ^= hash >> 29;
	}
	hash = (hash ^ seed[1]) * UINT64_C(0x9e3779b97f4a7c15);
	hash ^= hash >> 32;
	return hash ? hash : 1;
}

/* What is counted for a key now; *place: its own, or that which may best be overwritten. */
static double
look(Counts *of, uint64_t key, Count **place)
{
	Count *set = of->counts[key & (SETS - 1)];
	time_t now = time(NULL);

	*place = NULL;
	for (int i = 0; i < WAYS; i++)
	{
		double gone = now > set[i].at ? (double) (now - set[i].at) * of->forget : 0;

		set[i].count = set[i].count > gone ? set[i].count - gone : 0;
		set[i].at = now;
		if (set[i].key == key)
		{
			*place = &set[i];
			return set[i].count;
		}
		if (!*place || set[i].count < (*place)->count)
			*place = &set[i];
	}
	return 0;
}

static bool
used_up(Counts *of, uint64_t key)
{
	Count *place;

	return look(of, key, &place) > of->most - 1;
}

static void
add(Counts *of, uint64_t key, double n)
{
	Count *place;
	double count = look(of, key, &place) + n;

	if (count < 0)
		count = 0;
	place->key = key;
	place->count = count < of->most ? count : of->most;
}

static bool
is_known(uint64_t pair)
{
	bool found = false;

	for (int i = 0; i < MAX_KNOWN; i++)
		found |= known[i] == pair;
	return found;
}

/*
 * sign_in_begin: may this one ask the database now?  If it may, it has a place until
 * sign_in_end, and is counted as refused until that says otherwise: many at once get
 * no further than one after the other.
 */
MayTry
sign_in_begin(SignIn *one, uint64_t address, const char *role)
{
	uint64_t both[2];
	int unknown = 0;
	int of_address = 0;
	int of_pair = 0;
	int most = serve_options.max_db / 4;

	if (most > MAX_PLACES)
		most = MAX_PLACES;
	if (most < 1)
		most = 1;
	one->address = address;
	one->role = limit_key("role", role, strlen(role));
	both[0] = one->address;
	both[1] = one->role;
	one->pair = limit_key("pair", both, sizeof(both));
	one->known = is_known(one->pair);
	if (used_up(&of_pairs, one->pair) ||
		(!one->known &&
		 (used_up(&of_addresses, one->address) || used_up(&of_roles, one->role))))
		return TRY_LATER;
	for (int i = 0; i < places_count; i++)
	{
		unknown += !places[i].known;
		of_address += !places[i].known && places[i].address == one->address;
		of_pair += places[i].pair == one->pair;
	}
	if (of_pair >= OF_PAIR || places_count >= most + KEPT ||
		(!one->known && (unknown >= most || of_address >= (most + 1) / 2)))
		return TRY_SOON;
	places[places_count++] = *one;
	add(&of_pairs, one->pair, 1);
	add(&of_addresses, one->address, 1);
	add(&of_roles, one->role, 1);
	return MAY_TRY;
}

/* sign_in_end: its place is free; who was not refused gets back what was counted. */
void
sign_in_end(const SignIn *one, SignInEnd how)
{
	for (int i = 0; i < places_count; i++)
		if (places[i].pair == one->pair && places[i].known == one->known)
		{
			places[i] = places[--places_count];
			break;
		}
	if (how == SIGN_IN_REFUSED)
		return;
	add(&of_addresses, one->address, -1);
	add(&of_roles, one->role, -1);
	add(&of_pairs, one->pair, -1);
	if (how == SIGN_IN_DONE && !is_known(one->pair))
		known[next_known++ % MAX_KNOWN] = one->pair;
}

/*
 * hold_begin: may a sign-in be held back for a while (for a place, or because it was
 * refused)?  So many in all, and fewer from one address.
 */
bool
hold_begin(uint64_t address)
{
	int n = 0;

	for (int i = 0; i < held_count; i++)
		n += held[i] == address;
	if (held_count >= MAX_HELD || n >= OF_ADDRESS)
		return false;
	held[held_count++] = address;
	return true;
}

void
hold_end(uint64_t address)
{
	for (int i = 0; i < held_count; i++)
		if (held[i] == address)
		{
			held[i] = held[--held_count];
			break;
		}
}
