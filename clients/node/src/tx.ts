/*
 * tx.ts: a transaction of whichever library the application uses, as one function that
 * runs a statement in it.  Each is told by its shape, so that none is a dependency.
 *
 * Parameters are strings or NULL, which the statements cast themselves, and what they
 * return is text: no library's ideas of types get in between.
 */
import { InvalidTransactionError, toEventQueueError } from './errors';

export type Row = Record<string, string | null>;
export type Value = string | null;
/** Runs one statement with $1, $2, ... */
export type Executor = (sql: string, values: Value[]) => Promise<Row[]>;

/** A client of pg, TypeORM's EntityManager or QueryRunner. */
export interface QueryTransaction {
	query(sql: any, values?: any): Promise<any>;
}
/** A Prisma transaction. */
export interface PrismaTransaction {
	$queryRawUnsafe(sql: string, ...values: any[]): PromiseLike<any>;
}
/** A Knex transaction. */
export interface KnexTransaction {
	raw(sql: string, bindings?: any): any;
	isTransaction?: boolean;
}
/** A Kysely transaction. */
export interface KyselyTransaction {
	executeQuery(query: any, ...rest: any[]): Promise<any>;
	readonly isTransaction: boolean;
}
/** A Drizzle transaction. */
export interface DrizzleTransaction {
	execute(query: any): PromiseLike<any>;
}
/** What { tx } takes. */
export type TransactionLike =
	| QueryTransaction
	| PrismaTransaction
	| KnexTransaction
	| KyselyTransaction
	| DrizzleTransaction;

/** { tx }: the call is part of this transaction; without it, a transaction of its own. */
export interface TxOption {
	tx?: TransactionLike;
}

const rowsOf = (result: any): Row[] => (Array.isArray(result) ? result : result?.rows) ?? [];

/* Statements here have no ? of their own, which Knex would take for a binding. */
function toQuestionMarks(sql: string, values: Value[]): { sql: string; bindings: Value[] } {
	const bindings: Value[] = [];
	return {
		sql: sql.replace(/\$(\d+)/g, (_, n) => {
			bindings.push(values[Number(n) - 1]);
			return '?';
		}),
		bindings,
	};
}

const notInTransaction = (what: string, how: string) =>
	new InvalidTransactionError(`tx is ${what}, which is not a transaction; pass ${how}`);

function bareExecutor(tx: any): Executor {
	if (tx === null || (typeof tx !== 'object' && typeof tx !== 'function'))
		throw new InvalidTransactionError(`tx is ${tx === null ? 'null' : `a ${typeof tx}`}, not a transaction`);
	if (typeof tx.$queryRawUnsafe === 'function')
		return async (sql, values) => rowsOf(await tx.$queryRawUnsafe(sql, ...values));
	if (typeof tx.raw === 'function' && typeof tx.query !== 'function') {
		if (tx.isTransaction !== true)
			throw notInTransaction('Knex itself', 'the trx of knex.transaction(async trx => ...)');
		return knexExecutor(tx);
	}
	if (typeof tx.executeQuery === 'function') {
		if (tx.isTransaction !== true)
			throw notInTransaction('Kysely itself', 'the trx of db.transaction().execute(async trx => ...)');
		return async (sql, values) =>
			rowsOf(await tx.executeQuery({
				sql,
				parameters: values,
				query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
				queryId: { queryId: 'event_queue' },
			}));
	}
	if (typeof tx.raw === 'function' && tx.isTransaction === true)
		return knexExecutor(tx);
	if (typeof tx.execute === 'function' && typeof tx.select === 'function' && typeof tx.insert === 'function')
		return async (sql, values) => {
			const query: any = {
				getSQL: () => query,
				toQuery: () => ({ sql, params: values }),
				shouldInlineParams: false,
			};
			return rowsOf(await tx.execute(query));
		};
	if (typeof tx.query === 'function') {
		if (typeof tx.connect === 'function' && typeof tx.totalCount === 'number' && typeof tx.idleCount === 'number')
			throw notInTransaction('a Pool of pg', 'the client of pool.connect() after BEGIN');
		if (typeof tx.createQueryRunner === 'function' && typeof tx.initialize === 'function')
			throw notInTransaction("TypeORM's DataSource", 'the manager of dataSource.transaction(async manager => ...)');
		return async (sql, values) => rowsOf(await tx.query(sql, values));
	}
	throw new InvalidTransactionError('tx is none of: a client of pg, a Prisma transaction, a TypeORM EntityManager or QueryRunner, ' +
		'a Knex, Kysely or Drizzle transaction');
}

function knexExecutor(tx: any): Executor {
	return async (sql, values) => {
		const knex = toQuestionMarks(sql, values);
		return rowsOf(await tx.raw(knex.sql, knex.bindings));
	};
}

/** The transaction as a function that runs a statement in it, with errors of ours as classes. */
export function toExecutor(tx: TransactionLike): Executor {
	const run = bareExecutor(tx);
	return async (sql, values) => {
		try {
			return await run(sql, values);
		} catch (error) {
			throw toEventQueueError(error);
		}
	};
}
