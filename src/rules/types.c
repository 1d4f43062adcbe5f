/*
 * types.c: which rules an event's type is for.
 *
 * Events are of few types, and rules may be a thousand: the rules whose patterns a type
 * matches are kept for each type that has come, until the rules are read again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "common/pattern.h"
#include "event_queue.h"
#include "rules/rule.h"

/* Limits of the cache; it is emptied when one is reached. */
#define MAX_TYPES	1000
#define MAX_INDEXES (1024 * 1024)

typedef struct Type
{
	char name[EQ_MAX_NAME + 1]; /* the key */
	int *rules;					/* indexes */
	int n_rules;
} Type;

static MemoryContext types_context = NULL;
static HTAB *types = NULL;
static int n_indexes = 0;

void
eq_forget_rule_types(void)
{
	types = NULL;
	n_indexes = 0;
	if (types_context)
		MemoryContextReset(types_context);
}

static void
begin_types(void)
{
	HASHCTL control = {.keysize = sizeof(((Type *) NULL)->name),
					   .entrysize = sizeof(Type)};

	eq_forget_rule_types();
	if (types_context == NULL)
		types_context = AllocSetContextCreate(
			TopMemoryContext, "event_queue types of rules", ALLOCSET_DEFAULT_SIZES);
	control.hcxt = types_context;
	types = hash_create("event_queue types of rules", 64, &control,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/*
 * The indexes of the rules whose pattern the type matches, in the rules' order; they are
 * there until the next call.
 */
const int *
eq_rules_of_type(const EqRule *rules, int n_rules, const char *name, int *n_found)
{
	Type *type = types ? hash_search(types, name, HASH_FIND, NULL) : NULL;
	int *found;
	int n = 0;

	if (type == NULL)
	{
		found = palloc(Max(n_rules, 1) * sizeof(int));
		for (int i = 0; i < n_rules; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (eq_pattern_matches(name, rules[i].pattern))
				found[n++] = i;
		}
		if (types == NULL || hash_get_num_entries(types) >= MAX_TYPES ||
			n_indexes + n > MAX_INDEXES)
			begin_types();
		found = memcpy(MemoryContextAlloc(types_context, Max(n, 1) * sizeof(int)),
					   found, n * sizeof(int));
		type = hash_search(types, name, HASH_ENTER, NULL);
		type->rules = found;
		type->n_rules = n;
		n_indexes += n;
	}
	*n_found = type->n_rules;
	return type->rules;
}
