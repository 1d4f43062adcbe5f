/*
 * lineage.c: adds the metadata of events and jobs: who caused them, and what.
 *
 * An event's metadata has the actor and, if something caused it, the correlation id of the
 * whole chain and the id of the causing event; an event that a handler appends also has the
 * job and, if there is one, the rule.  A job has the event and the job that it comes from.
 * So trace() can follow a chain both ways.  Both have the rules that led to them, so that
 * no rule runs in a loop.  Values that the caller gives are kept, except the job, its rule
 * and those rules: a handler may copy the metadata of an earlier event.  The rules that a
 * session names by event_queue.rule_chain count for jobs and for changes of tables only if
 * it may claim jobs: otherwise anyone who can write to a table could keep its rules from
 * firing.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "compat.h"
#include "event_queue.h"
#include "common/audit.h"
#include "common/json.h"
#include "store/store.h"

/* The job whose handler is running; its strings live in job_context. */
static struct
{
	bool running;
	int64 job_id;
	int64 parent_job; /* whose handler enqueued it; 0: none */
	char *event_id;	  /* that caused the job; NULL: none */
	char *correlation_id;
	char *rule;
	Jsonb *rule_chain; /* rules that led to it (rules/chain.c); NULL: none */
	char *rule_root;   /* the event at the head of these (rules/fan_out.c) */
} job;
static MemoryContext job_context = NULL;

/* A string, in job_context; NULL if there is none. */
static char *
member(Jsonb *object, const char *key)
{
	JsonbValue buffer;
	char *text = eq_json_string(eq_json_member(object, key, &buffer));

	return text ? MemoryContextStrdup(job_context, text) : NULL;
}

/* What metadata says of the rules that led to it, in job_context; NULL: nothing. */
static Jsonb *
chain_member(Jsonb *metadata)
{
	JsonbValue buffer;
	JsonbValue *value = eq_json_member(metadata, "rule_chain", &buffer);
	MemoryContext old;
	Jsonb *chain;

	if (value == NULL || value->type != jbvBinary)
		return NULL;
	old = MemoryContextSwitchTo(job_context);
	chain = JsonbValueToJsonb(value);
	MemoryContextSwitchTo(old);
	return chain;
}

/* The executor is about to run a handler. */
void
eq_enter_job(int64 job_id, Jsonb *metadata)
{
	JsonbValue buffer;

	if (job_context == NULL)
		job_context = AllocSetContextCreate(TopMemoryContext, "event_queue lineage",
											ALLOCSET_SMALL_SIZES);
	MemoryContextReset(job_context);
	job.running = true;
	job.job_id = job_id;
	job.parent_job = 0;
	(void) eq_json_fits_int64(eq_json_member(metadata, "parent_job", &buffer),
							  &job.parent_job);
	job.event_id = member(metadata, "event_id");
	job.correlation_id = member(metadata, "correlation_id");
	job.rule = member(metadata, "rule");
	job.rule_chain = chain_member(metadata);
	job.rule_root = member(metadata, "rule_root");
}

/* Returns the number of rules in the chain of this metadata. */
static int
chain_length(Jsonb *metadata)
{
	JsonbValue buffer;
	JsonbValue *chain = eq_json_member(metadata, "rule_chain", &buffer);

	return chain && chain->type == jbvBinary
			   ? JsonContainerSize(chain->val.binary.data)
			   : 0;
}

/*
 * A handler is about to be called for several jobs at once.  What it appends and enqueues gets
 * the chain of rules, which is the same for all, and none of the jobs as its cause.  It counts
 * for the event at the head of the chain (rules/fan_out.c) if that is the same for all, too
 * (eq_may_share_call).
 */
void
eq_enter_jobs(Jsonb *metadata)
{
	eq_enter_job(0, metadata);
	job.event_id = job.correlation_id = job.rule = NULL;
	job.parent_job = 0;
	if (chain_length(metadata) < 2)
		job.rule_root = NULL;
}

static bool
is_same_chain(Jsonb *a, Jsonb *b)
{
	JsonbValue buffers[2];
	JsonbValue *chain_a = eq_json_member(a, "rule_chain", &buffers[0]);
	JsonbValue *chain_b = eq_json_member(b, "rule_chain", &buffers[1]);

	if (chain_a == NULL || chain_b == NULL)
		return chain_a == chain_b;
	return chain_a->type == jbvBinary && chain_b->type == jbvBinary &&
		   compareJsonbContainers(chain_a->val.binary.data,
								  chain_b->val.binary.data) == 0;
}

static bool
is_same_root(Jsonb *a, Jsonb *b)
{
	JsonbValue buffers[2];
	char *root_a = eq_json_string(eq_json_member(a, "rule_root", &buffers[0]));
	char *root_b = eq_json_string(eq_json_member(b, "rule_root", &buffers[1]));

	return root_a != NULL && root_b != NULL && strcmp(root_a, root_b) == 0;
}

/*
 * May one call of a handler have both jobs?  Only if the same rules led to them and, in chains
 * of more than one rule, the same event.  (Jobs that one rule made of different events may
 * share a call; what their handler makes begins a count of its own.)
 */
bool
eq_may_share_call(Jsonb *a, Jsonb *b)
{
	return is_same_chain(a, b) && (chain_length(a) < 2 || is_same_root(a, b));
}

void
eq_leave_job(void)
{
	job.running = false;
	eq_audit_role = InvalidOid;
}

/* Is a handler running in this session? */
bool
eq_is_in_job(void)
{
	return job.running;
}

/* Adds a member, unless the caller has given it. */
static void
add_string(JsonbParseState **state, Jsonb *given, const char *key, const char *text)
{
	JsonbValue buffer;

	if (text == NULL || text[0] == '\0' ||
		eq_json_member(given, key, &buffer) != NULL)
		return;
	eq_json_add_string(state, key, text, 0);
}

/* Begins an object with all that the caller gave (check_given). */
static void
begin_object(JsonbParseState **state, Jsonb *given)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (given == NULL)
		return;
	it = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &value, true)) == WJB_KEY)
	{
		pushJsonbValue(state, WJB_KEY, &value);
		(void) JsonbIteratorNext(&it, &value, true);
		pushJsonbValue(state, WJB_VALUE, &value);
	}
}

static const char *
actor(void)
{
	const char *name;

	if (eq_actor[0] != '\0')
		return eq_actor;
	/* A worker's session user is the server's; the handler's owner acts. */
	name = GetUserNameFromId(job.running ? GetUserId() : GetSessionUserId(), true);
	/* The role that signed in may have been dropped since; the one that was SET goes on. */
	if (name == NULL)
		name = GetUserNameFromId(GetOuterUserId(), true);
	return name ? name : "";
}

static const char *
first_of(const char *setting, const char *of_job)
{
	if (setting[0] != '\0')
		return setting;
	return job.running ? of_job : NULL;
}

/* The rules that led to what this session does; NULL: none. */
static Jsonb *
rule_chain(void)
{
	if (job.running)
		return job.rule_chain;
	return eq_rule_chain[0] != '\0' ? eq_json_from(eq_rule_chain) : NULL;
}

/*
 * May the session name the rules that led to what it does (event_queue.rule_chain)?  Only
 * handlers, and roles that may claim jobs: others could keep rules from firing by it.
 */
static bool
is_believed(void)
{
	Oid types[] = {TEXTOID,		 INT4OID, TEXTOID, INTERVALOID,
				   TEXTARRAYOID, TEXTOID, BOOLOID};
	Oid claim;

	if (job.running)
		return true;
	/* Not by its name, for which the present role would need USAGE of the schema. */
	claim = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							CStringGetDatum("claim"),
							PointerGetDatum(buildoidvector(types, lengthof(types))),
							ObjectIdGetDatum(get_namespace_oid(EQ_SCHEMA, true)));
	return OidIsValid(claim) &&
		   eq_function_aclcheck(claim, GetOuterUserId(), ACL_EXECUTE) == ACLCHECK_OK;
}

/* The chain of what this session does, if it may name one. */
static Jsonb *
believed_chain(void)
{
	return job.running || (eq_rule_chain[0] != '\0' && is_believed()) ? rule_chain()
																	  : NULL;
}

/* Removes the chain from given metadata, which may be copied, unless the session may name one. */
static Jsonb *
without_chain(Jsonb *given)
{
	static const char *const members[] = {"rule_chain", "rule_root"};

	for (int i = 0; i < lengthof(members); i++)
	{
		JsonbValue buffer;

		if (given && JB_ROOT_IS_OBJECT(given) &&
			eq_json_member(given, members[i], &buffer) != NULL && !is_believed())
			given = eq_json_without(given, members[i]);
	}
	return given;
}

/* For the setting: is it empty, or an array of numbers of rules? */
bool
eq_check_rule_chain(char **value, void **extra, GucSource source)
{
	const char *at = *value;
	int n = 0;

	if (*at == '\0')
		return true;
	if (*at++ != '[')
		return false;
	while (*at != ']')
	{
		int digits;

		if (n++ > 0)
		{
			if (*at++ != ',')
				return false;
			at += strspn(at, " ");
		}
		digits = strspn(at, "0123456789");
		if (digits == 0 || digits > 10 || (at[0] == '0' && digits > 1) ||
			n > EQ_MAX_RULE_DEPTH)
			return false;
		at += digits;
	}
	return at[1] == '\0';
}

/* {"actor": name}, kept from call to call: most events have no more to say. */
static Jsonb *
actor_only(const char *name)
{
	static char *kept_name = NULL;
	static Jsonb *kept = NULL;

	if (kept == NULL || strcmp(kept_name, name) != 0)
	{
		JsonbParseState *state = NULL;
		Jsonb *made;

		begin_object(&state, NULL);
		add_string(&state, NULL, "actor", name);
		made = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
		if (kept)
		{
			pfree(kept);
			pfree(kept_name);
		}
		kept = NULL;
		kept_name = MemoryContextStrdup(TopMemoryContext, name);
		kept = MemoryContextAlloc(TopMemoryContext, VARSIZE(made));
		memcpy(kept, made, VARSIZE(made));
	}
	return kept;
}

/*
 * EQ009 unless what the caller gave is an object, and the member by which its cause
 * is found, which is in an index, short.
 */
static void
check_given(Jsonb *given, const char *what, const char *key, const char *setting)
{
	JsonbValue buffer;
	JsonbValue *value;

	if (given != NULL && !JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("%s metadata must be a JSON object", what)));
	value = eq_json_member(given, key, &buffer);
	if (value == NULL
			? setting != NULL && strlen(setting) > EQ_MAX_NAME
			: value->type == jbvBinary ||
				  (value->type == jbvString && value->val.string.len > EQ_MAX_NAME))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("\"%s\" of %s metadata must be a string of at most %d bytes",
						key, what, EQ_MAX_NAME)));
}

static Jsonb *
event_metadata(Jsonb *given, Jsonb *chain)
{
	JsonbParseState *state = NULL;
	const char *causation = first_of(eq_causation_id, job.event_id);
	const char *correlation = first_of(eq_correlation_id, job.correlation_id);
	JsonbValue buffer;

	if ((given == NULL || (JB_ROOT_IS_OBJECT(given) && JB_ROOT_COUNT(given) == 0)) &&
		!job.running && causation == NULL && correlation == NULL && chain == NULL &&
		eq_actor[0] == '\0')
		return actor_only(actor());
	check_given(given, "event", "causation_id", causation);
	begin_object(&state, given);
	add_string(&state, given, "actor", actor());
	/* A session that names another actor is recorded, too. */
	if (!job.running &&
		(eq_actor[0] != '\0' || eq_json_member(given, "actor", &buffer)))
		add_string(&state, NULL, "session_user",
				   GetUserNameFromId(GetSessionUserId(), true));
	add_string(&state, given, "causation_id", causation);
	add_string(&state, given, "correlation_id",
			   correlation ? correlation : causation);
	if (job.running && job.job_id != 0)
	{
		eq_json_add_int64(&state, "job_id", job.job_id);
		add_string(&state, NULL, "rule", job.rule);
		if (job.parent_job != 0)
			eq_json_add_int64(&state, "parent_job", job.parent_job);
	}
	if (chain)
		eq_json_add_jsonb(&state, "rule_chain", chain);
	if (chain && job.running)
		add_string(&state, NULL, "rule_root", job.rule_root);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* An event's metadata: what the caller gave, and what is known besides. */
Jsonb *
eq_event_metadata(Jsonb *given)
{
	return event_metadata(given, rule_chain());
}

/* The metadata of an event that a trigger appends for a change of a table. */
Jsonb *
eq_change_metadata(void)
{
	return event_metadata(NULL, believed_chain());
}

/* The same for a job; NULL if there is nothing to say. */
Jsonb *
eq_job_metadata(Jsonb *given)
{
	JsonbParseState *state = NULL;
	const char *event_id = first_of(eq_causation_id, job.event_id);
	const char *correlation = first_of(eq_correlation_id, job.correlation_id);
	Jsonb *chain = believed_chain();

	given = without_chain(given);
	check_given(given, "job", "event_id", event_id);
	if (!job.running && event_id == NULL && correlation == NULL && chain == NULL)
		return given;
	begin_object(&state, given);
	add_string(&state, given, "event_id", event_id);
	add_string(&state, given, "correlation_id",
			   correlation ? correlation : event_id);
	if (job.running && job.job_id != 0)
		eq_json_add_int64(&state, "parent_job", job.job_id);
	if (chain)
		eq_json_add_jsonb(&state, "rule_chain", chain);
	if (chain && job.running)
		add_string(&state, NULL, "rule_root", job.rule_root);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
