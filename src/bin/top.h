/*
 * top.h: what the files of "eventq top" share.
 */
#ifndef EVENTQ_TOP_H
#define EVENTQ_TOP_H

#include "eventq.h"

/* Each view is left to the one above it. */
typedef enum View
{
	VIEW_QUEUES,
	VIEW_JOBS, /* of one queue */
	VIEW_JOB,
	VIEW_HELP
} View;

typedef struct Column
{
	const char *heading;
	int column; /* of the result */
	int width;	/* 0: what is left of the line */
	bool right;
} Column;

/* A way to sort; the first row is that with the largest number, or the first name. */
typedef struct Sort
{
	const char *name;
	int column;
	bool number;
} Sort;

typedef struct Top
{
	EqCli *cli;
	View view;
	View below_help;
	PGresult *rows;	  /* of the view; NULL: none yet */
	PGresult *totals; /* one row */
	PGresult *health; /* what is not well */
	int *order;		  /* numbers of rows that the filter lets through, sorted */
	int n_order;
	int selected; /* in order */
	int first;	  /* in order: at the top of the screen */
	char selected_key[300];
	char queue[300];
	char job[300];
	char filter[64];
	int sort;
	bool frozen;
	bool typing;		/* a filter */
	char question[400]; /* y or n; empty: none */
	char asked[300];	/* the queue that it is about */
	char message[300];
	double interval;
	double next_look;
	double next_health;
} Top;

/* top.c */
extern const Sort eq_top_sorts[];

/* top_draw.c */
extern void eq_top_draw(Top *top);
extern int eq_top_lines(void);

#endif /* EVENTQ_TOP_H */
