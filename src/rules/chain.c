/*
 * chain.c: the chain of rules that led to an event, so that rules don't run in a loop,
 * unless one may (on_loop), and then not for ever.
 *
 * A job that a rule makes has in its metadata "rule_chain": the numbers of the rules
 * that led to its event, and that of the rule.  What its handler appends and enqueues
 * has the same chain (store/lineage.c).  So whether a rule has fired in this chain
 * already is known from the event alone: no look-up, and nothing to do for events that
 * no rule led to.
 */
#include "postgres.h"

#include "common/json.h"
#include "event_queue.h"
#include "rules/rule.h"

int eq_rule_depth = 16; /* event_queue.rule_depth */

/* The chain as an array; NULL if there is none, or what someone wrote is none. */
static JsonbContainer *
chain_of(Jsonb *metadata, JsonbValue *buffer)
{
	JsonbValue *chain = eq_json_member(metadata, EQ_RULE_CHAIN, buffer);

	if (chain == NULL || chain->type != jbvBinary ||
		!JsonContainerIsArray(chain->val.binary.data) ||
		JsonContainerIsScalar(chain->val.binary.data))
		return NULL;
	return chain->val.binary.data;
}

/* May the rule fire for an event with this metadata? */
EqChainVerdict
eq_judge_chain(const EqRule *rule, Jsonb *metadata)
{
	JsonbValue buffer;
	JsonbContainer *chain = chain_of(metadata, &buffer);

	if (chain == NULL)
		return EQ_CHAIN_FREE;
	if (JsonContainerSize(chain) >= eq_rule_depth)
		return EQ_CHAIN_TOO_DEEP;
	if (rule->may_repeat)
		return EQ_CHAIN_FREE;
	for (uint32 i = 0; i < JsonContainerSize(chain); i++)
	{
		int64 rule_id;

		if (eq_json_fits_int64(getIthJsonbValueFromContainer(chain, i), &rule_id) &&
			rule_id == rule->rule_id)
			return EQ_CHAIN_LOOP;
	}
	return EQ_CHAIN_FREE;
}

/* Appends the chain as JSON, with the rule at its end; eq_judge_chain let it fire. */
void
eq_append_chain(StringInfo json, Jsonb *metadata, int32 rule_id)
{
	JsonbValue buffer;
	JsonbContainer *chain = chain_of(metadata, &buffer);

	appendStringInfoChar(json, '[');
	for (uint32 i = 0; chain != NULL && i < JsonContainerSize(chain); i++)
	{
		int64 led_here;

		if (eq_json_fits_int64(getIthJsonbValueFromContainer(chain, i), &led_here))
			appendStringInfo(json, INT64_FORMAT ", ", led_here);
	}
	appendStringInfo(json, "%d]", rule_id);
}
