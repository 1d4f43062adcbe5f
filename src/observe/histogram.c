/*
 * histogram.c: histograms of times as values of SQL.
 *
 * A histogram is a bytea.  For each cell that is not empty, in order, it has the distance
 * to the previous such cell and the count, both as base-128 numbers with the lowest digit
 * first.  So the histogram of a minute has some dozens of bytes.  wake/series.h says where
 * cells begin and end.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "observe/metrics.h"

PG_FUNCTION_INFO_V1(eq_histogram_of);
PG_FUNCTION_INFO_V1(eq_histogram_plus);
PG_FUNCTION_INFO_V1(eq_histogram_sum);
PG_FUNCTION_INFO_V1(eq_histogram_count);
PG_FUNCTION_INFO_V1(eq_histogram_quantile);
PG_FUNCTION_INFO_V1(eq_counters_plus);
PG_FUNCTION_INFO_V1(eq_counters_minus);

#define MAX_NUMBER 10 /* bytes of a number of 64 bits */

static uint8 *
put_number(uint8 *at, uint64 n)
{
	while (n >= 0x80)
	{
		*at++ = (uint8) (n | 0x80);
		n >>= 7;
	}
	*at++ = (uint8) n;
	return at;
}

static const uint8 *
get_number(const uint8 *at, const uint8 *end, uint64 *n)
{
	*n = 0;
	for (int shift = 0; at < end && shift < 64; shift += 7)
	{
		*n |= (uint64) (*at & 0x7f) << shift;
		if ((*at++ & 0x80) == 0)
			return at;
	}
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("invalid histogram: a number is truncated")));
}

bytea *
eq_encode_cells(const EqCells *cells)
{
	int n = 0;
	bytea *result;
	uint8 *at;
	int last = 0;

	for (int i = 0; i < EQ_CELLS; i++)
		n += cells->n[i] != 0;
	result = palloc(VARHDRSZ + n * (2 + MAX_NUMBER));
	at = (uint8 *) VARDATA(result);
	for (int i = 0; i < EQ_CELLS; i++)
	{
		if (cells->n[i] == 0)
			continue;
		at = put_number(at, i - last);
		at = put_number(at, cells->n[i]);
		last = i;
	}
	SET_VARSIZE(result, at - (uint8 *) result);
	return result;
}

void
eq_add_encoded_cells(EqCells *cells, const bytea *encoded, int sign)
{
	const uint8 *at = (const uint8 *) VARDATA_ANY(encoded);
	const uint8 *end = at + VARSIZE_ANY_EXHDR(encoded);
	uint64 cell = 0;

	while (at < end)
	{
		uint64 gap;
		uint64 n;

		at = get_number(at, end, &gap);
		at = get_number(at, end, &n);
		if (gap >= EQ_CELLS || (cell += gap) >= EQ_CELLS)
			ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
							errmsg("invalid histogram: too many cells")));
		cells->n[cell] += sign < 0 ? -n : n;
	}
}

/* A histogram of these times, in microseconds. */
Datum
eq_histogram_of(PG_FUNCTION_ARGS)
{
	EqCells *cells = palloc0(sizeof(EqCells));
	Datum *times;
	bool *nulls;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &times, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			cells->n[eq_cell_of(DatumGetInt64(times[i]))]++;
	}
	PG_RETURN_BYTEA_P(eq_encode_cells(cells));
}

/* Both together; NULL counts as empty. */
Datum
eq_histogram_plus(PG_FUNCTION_ARGS)
{
	EqCells *cells;

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		PG_RETURN_NULL();
	for (int i = 0; i < 2; i++)
	{
		if (PG_ARGISNULL(i) || VARSIZE_ANY_EXHDR(PG_GETARG_BYTEA_PP(i)) == 0)
			if (!PG_ARGISNULL(1 - i))
				PG_RETURN_DATUM(PG_GETARG_DATUM(1 - i));
	}
	cells = palloc0(sizeof(EqCells));
	for (int i = 0; i < 2; i++)
	{
		if (!PG_ARGISNULL(i))
			eq_add_encoded_cells(cells, PG_GETARG_BYTEA_PP(i), 1);
	}
	PG_RETURN_BYTEA_P(eq_encode_cells(cells));
}

/* All together; NULLs count as empty. */
Datum
eq_histogram_sum(PG_FUNCTION_ARGS)
{
	EqCells *cells = palloc0(sizeof(EqCells));
	Datum *histograms;
	bool *nulls;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), BYTEAOID, -1, false, TYPALIGN_INT,
					  &histograms, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			eq_add_encoded_cells(cells, DatumGetByteaPP(histograms[i]), 1);
	}
	PG_RETURN_BYTEA_P(eq_encode_cells(cells));
}

static uint64
count_cells(const EqCells *cells)
{
	uint64 n = 0;

	for (int i = 0; i < EQ_CELLS; i++)
		n += cells->n[i];
	return n;
}

Datum
eq_histogram_count(PG_FUNCTION_ARGS)
{
	EqCells *cells = palloc0(sizeof(EqCells));

	eq_add_encoded_cells(cells, PG_GETARG_BYTEA_PP(0), 1);
	PG_RETURN_INT64((int64) count_cells(cells));
}

/* The nearest-rank quantile in seconds: the middle of the cell that has it. */
Datum
eq_histogram_quantile(PG_FUNCTION_ARGS)
{
	EqCells *cells;
	double q = PG_GETARG_FLOAT8(1);
	uint64 n;
	uint64 seen = 0;
	double rank;

	if (!(q >= 0 && q <= 1))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("a quantile must be between 0 and 1")));
	if (VARSIZE_ANY_EXHDR(PG_GETARG_BYTEA_PP(0)) == 0)
		PG_RETURN_NULL();
	cells = palloc0(sizeof(EqCells));
	eq_add_encoded_cells(cells, PG_GETARG_BYTEA_PP(0), 1);
	n = count_cells(cells);
	if (n == 0)
		PG_RETURN_NULL();
	rank = Max(q * n, 1);
	for (int i = 0; i < EQ_CELLS; i++)
	{
		seen += cells->n[i];
		if (seen >= rank)
			PG_RETURN_FLOAT8(eq_cell_middle(i) / 1000000.0);
	}
	PG_RETURN_FLOAT8(eq_cell_middle(EQ_CELLS - 1) / 1000000.0);
}

/* Counters by counters; a NULL array counts as zeros, and what one lacks as zero. */
static Datum
add_counters(FunctionCallInfo fcinfo, int sign)
{
	Datum *values[2] = {NULL, NULL};
	bool *nulls[2] = {NULL, NULL};
	int n[2] = {0, 0};
	Datum *result;
	int most;

	for (int i = 0; i < 2; i++)
	{
		if (!PG_ARGISNULL(i))
			deconstruct_array(PG_GETARG_ARRAYTYPE_P(i), INT8OID, sizeof(int64),
							  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values[i],
							  &nulls[i], &n[i]);
	}
	most = Max(n[0], n[1]);
	result = palloc(Max(most, 1) * sizeof(Datum));
	for (int i = 0; i < most; i++)
	{
		int64 a = i < n[0] && !nulls[0][i] ? DatumGetInt64(values[0][i]) : 0;
		int64 b = i < n[1] && !nulls[1][i] ? DatumGetInt64(values[1][i]) : 0;

		result[i] = Int64GetDatum(sign > 0 ? a + b : a - b);
	}
	return PointerGetDatum(construct_array(result, most, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

Datum
eq_counters_plus(PG_FUNCTION_ARGS)
{
	return add_counters(fcinfo, 1);
}

Datum
eq_counters_minus(PG_FUNCTION_ARGS)
{
	return add_counters(fcinfo, -1);
}
