/*
 * hosts.ts: several servers of which one is the primary, as libpq has them: a list in the URI
 * (postgresql://a:5432,b/db), in host and port, or in PGHOST and PGPORT.
 *
 * Each new connection goes to the server that was the primary last; one that can't be
 * reached, or is a standby, gives the turn to the next.  Whoever connects tries again anyway.
 */
import * as pg from 'pg';

/** Settings of pg, with what is used here. */
export interface HostsConfig extends pg.ClientConfig {
	/** What differs for each server. */
	hosts?: pg.ClientConfig[];
	/** Whose turn it is; the same object for all connections of an EventQueue. */
	turn?: { at: number };
}

const listed = (text: string): string[] => text.split(',').map(part => part.trim());

function hostsOf(config: pg.ClientConfig): pg.ClientConfig[] {
	if (config.connectionString !== undefined) {
		const [, before, hosts, after] = /^(postgres(?:ql)?:\/\/(?:[^@/?]*@)?)([^/?]*)(.*)$/.exec(config.connectionString) ?? [];
		return hosts === undefined || !hosts.includes(',') ? [] : listed(hosts).map(host => ({ connectionString: `${before}${host}${after}` }));
	}
	const host = config.host ?? process.env.PGHOST ?? '';
	if (!host.includes(','))
		return [];
	const ports = listed(String(config.port ?? process.env.PGPORT ?? 5432));
	const hosts = listed(host);
	if (ports.length !== 1 && ports.length !== hosts.length)
		throw new Error(`${hosts.length} hosts, but ${ports.length} ports: give one port, or one for each host`);
	return hosts.map((one, i) => ({ host: one, port: Number(ports[ports.length === 1 ? 0 : i]) }));
}

/** The settings, with the servers that they list. */
export function withHosts(config: HostsConfig): HostsConfig {
	const hosts = hostsOf(config);
	return hosts.length === 0 ? config : { ...copyOf(config), hosts, turn: { at: 0 } };
}

/**
 * A copy of settings for pg, with what it hides from enumeration once a pool or a connection has them: the password,
 * and the key of a certificate.
 */
export function copyOf<C extends pg.ClientConfig>(config: C): C {
	const to = { ...config };
	if (config.password !== undefined)
		to.password = config.password;
	const { ssl } = config;
	if (typeof ssl === 'object' && ssl !== null)
		to.ssl = ssl.key === undefined ? { ...ssl } : { ...ssl, key: ssl.key };
	return to;
}

/**
 * Settings with others in their place.  A URI says more than what stands beside it, so that of the first is taken
 * apart where the others have none.
 */
export function overlaid(config: HostsConfig, others: HostsConfig): HostsConfig {
	const { hosts, turn, connectionString, ...base } = copyOf(config);
	if (others.connectionString !== undefined || (connectionString === undefined && hosts === undefined))
		return { ...base, ...withHosts(others) };
	const { host, port, user, database, password, ssl } = new pg.Client({ ...base, ...(hosts === undefined ? { connectionString } : hosts[0]) });
	return { ...base, host, port, user, database, password, ssl, ...withHosts(others) };
}

/** A connection to whose turn it is; without a list of servers the same as pg's. */
export class HostsClient extends pg.Client {
	private readonly hosts: HostsConfig;
	private readonly at: number;

	constructor(config: HostsConfig = {}) {
		const { hosts, turn, ...rest } = copyOf(config);
		const at = turn?.at ?? 0;
		super(hosts === undefined ? rest : { ...rest, ...hosts[at % hosts.length] });
		this.hosts = config;
		this.at = at;
	}

	// As pg's, whose types have changed what the promise gives.
	override connect(callback?: any): any {
		if (this.hosts.hosts === undefined)
			return callback === undefined ? super.connect() : super.connect(callback);
		const done = this.connectToPrimary();
		if (callback === undefined)
			return done;
		done.then(() => callback(), callback);
	}

	private async connectToPrimary(): Promise<void> {
		const turn = this.hosts.turn!;
		try {
			await super.connect();
			const { rows } = await this.query('SELECT pg_catalog.pg_is_in_recovery()::text AS standby');
			if (rows[0].standby === 'false')
				return;
			throw Object.assign(new Error(`the server ${this.host}:${this.port} is a standby`), { code: '08001' });
		} catch (error) {
			// The others may have passed it on already.
			if (turn.at === this.at)
				turn.at = (this.at + 1) % this.hosts.hosts!.length;
			await this.end().catch(() => {});
			throw error;
		}
	}
}

/**
 * Settings for a Pool of pg whose connections go to the primary among the servers listed.  Who asks while
 * none is known gets the error of the one that was tried, and the next one is tried for who asks then.
 */
export const toPrimary = (config: pg.PoolConfig = {}): pg.PoolConfig => ({ Client: HostsClient, ...withHosts(config) } as pg.PoolConfig);
