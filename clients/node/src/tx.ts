/*
 * tx.ts: a transaction of whichever library the application uses, as one function that
 * runs a statement in it.  Each is told by its shape, so that none is a dependency.
 *
 * Parameters are strings or NULL, which the statements cast themselves, and what they
 * return is text: no library's ideas of types get in between.
 */
import { ConnectionError, EventQueueError, hasEnded, InvalidTransactionError, isConnectionError, toEventQueueError } from './errors';

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

/* A client of pg that has nothing on its way and is in no transaction; those before 8.17 don't tell. */
const isIdleClient = (client: any): boolean =>
	typeof client?.getTransactionStatus === 'function' && client.getTransactionStatus() === 'I' && client.readyForQuery === true && !client._queryQueue?.length;

const prismaTransaction = Symbol.for('prisma.client.transaction.id');

/** Why a call with this tx would not be part of a transaction, though it could be made. */
function complaintOf(tx: any): string | undefined {
	const not = (what: string, how: string) => `tx is ${what}, which is not a transaction; pass ${how}`;

	if (typeof tx.$queryRawUnsafe === 'function')
		return typeof tx.$connect === 'function' && tx[prismaTransaction] === undefined
			? not('Prisma itself', 'the tx of prisma.$transaction(async tx => ...)') : undefined;
	if (typeof tx.raw === 'function')
		return tx.isTransaction === true || typeof tx.query === 'function' && tx.isTransaction === undefined ? undefined
			: not('Knex itself', 'the trx of knex.transaction(async trx => ...)');
	if (typeof tx.executeQuery === 'function')
		return tx.isTransaction === true ? undefined : not('Kysely itself', 'the trx of db.transaction().execute(async trx => ...)');
	if (typeof tx.execute === 'function' && typeof tx.transaction === 'function' && typeof tx.rollback !== 'function')
		return not('Drizzle itself', 'the tx of db.transaction(async tx => ...)');
	if (typeof tx.query !== 'function')
		return isIdleClient(tx.session?.client) ? "tx is a transaction of Drizzle's that has ended: await what is done in it" : undefined;
	if (typeof tx.connect === 'function' && typeof tx.totalCount === 'number' && typeof tx.idleCount === 'number')
		return not('a Pool of pg', 'the client of pool.connect() after BEGIN');
	if (typeof tx.createQueryRunner === 'function' && typeof tx.initialize === 'function')
		return not("TypeORM's DataSource", 'the manager of dataSource.transaction(async manager => ...)');
	if (typeof tx.getRepository === 'function' && tx.queryRunner?.isTransactionActive !== true)
		return not("an EntityManager of TypeORM's outside of a transaction", 'the manager of dataSource.transaction(async manager => ...)');
	if (typeof tx.startTransaction === 'function' && tx.isTransactionActive === false)
		return not("a QueryRunner of TypeORM's without one", 'it between startTransaction and commitTransaction');
	if (isIdleClient(tx))
		return not('a client of pg that has none open', 'it after BEGIN, and await what is done with it before COMMIT');
	return undefined;
}

/** Is it a transaction, as far as can be told?  What holds the present one may give the library itself. */
export const isInTransaction = (tx: TransactionLike): boolean =>
	tx === null || typeof tx !== 'object' && typeof tx !== 'function' || complaintOf(tx) === undefined;

function bareExecutor(tx: any): Executor {
	if (tx === null || (typeof tx !== 'object' && typeof tx !== 'function'))
		throw new InvalidTransactionError(`tx is ${tx === null ? 'null' : `a ${typeof tx}`}, not a transaction`);
	if (typeof tx.$queryRawUnsafe === 'function')
		return async (sql, values) => rowsOf(await tx.$queryRawUnsafe(sql, ...values));
	if (typeof tx.raw === 'function' && (typeof tx.query !== 'function' || tx.isTransaction === true))
		return knexExecutor(tx);
	if (typeof tx.executeQuery === 'function')
		return async (sql, values) =>
			rowsOf(await tx.executeQuery({
				sql,
				parameters: values,
				query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
				queryId: { queryId: 'event_queue' },
			}));
	if (typeof tx.execute === 'function' && typeof tx.select === 'function' && typeof tx.insert === 'function')
		return async (sql, values) => {
			const query: any = {
				getSQL: () => query,
				toQuery: () => ({ sql, params: values }),
				shouldInlineParams: false,
			};
			return rowsOf(await tx.execute(query));
		};
	if (typeof tx.query === 'function')
		return async (sql, values) => rowsOf(await tx.query(sql, values));
	throw new InvalidTransactionError('tx is none of: a client of pg, a Prisma transaction, a TypeORM EntityManager or QueryRunner, ' +
		'a Knex, Kysely or Drizzle transaction');
}

function knexExecutor(tx: any): Executor {
	return async (sql, values) => {
		const knex = toQuestionMarks(sql, values);
		return rowsOf(await tx.raw(knex.sql, knex.bindings));
	};
}

/** A session as a function that runs a statement in it, with errors of ours as classes. */
export function sessionExecutor(session: TransactionLike): Executor {
	const run = bareExecutor(session);
	return async (sql, values) => {
		try {
			return await run(sql, values);
		} catch (error) {
			throw toEventQueueError(error);
		}
	};
}

/** The transaction as a function that runs a statement in it, as long as it is one. */
export function toExecutor(tx: TransactionLike): Executor {
	const run = sessionExecutor(tx);
	return async (sql, values) => {
		const complaint = complaintOf(tx);
		if (complaint !== undefined)
			throw new InvalidTransactionError(complaint);
		try {
			return await run(sql, values);
		} catch (error) {
			if (hasEnded(error))
				throw new InvalidTransactionError(
					`tx is a transaction that has ended: await what is done in it (${(error as Error).message.trim().split('\n').at(-1)})`, { cause: error });
			if (!(error instanceof EventQueueError) && isConnectionError(error))
				throw new ConnectionError(`the connection of tx is gone, and with it all that was done in the transaction: begin it anew (${(error as Error).message})`, false, error);
			throw error;
		}
	};
}
