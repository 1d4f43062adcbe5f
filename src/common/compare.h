/*
 * compare.h: comparison functions for sorting arrays.
 */
#ifndef EQ_COMPARE_H
#define EQ_COMPARE_H

/* For qsort and bsearch: two int32. */
static inline int
eq_compare_int32(const void *a, const void *b)
{
	int32 x = *(const int32 *) a;
	int32 y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

#endif /* EQ_COMPARE_H */
