// api.js: questions to the server, and its errors.

export class ApiError extends Error {
	constructor(problem) {
		super(problem.detail ?? problem.title ?? 'error');
		this.status = problem.status ?? 0;
		this.sqlstate = problem.sqlstate;
		this.hint = problem.hint;
	}
}

export const session = { csrf: null, about: null, payloads: false, allowActions: false };

async function ask(path, options) {
	let response;
	try {
		response = await fetch(path, { credentials: 'same-origin', cache: 'no-store', ...options });
	} catch (error) {
		if (error.name === 'AbortError') throw error;
		throw new ApiError({ status: 0, detail: 'offline' });
	}
	const text = await response.text();
	let body = {};
	try {
		body = text ? JSON.parse(text) : {};
	} catch {
		body = { detail: text.slice(0, 200) };
	}
	if (!response.ok) {
		const error = new ApiError({ ...body, status: response.status });
		if (error.status === 401 && session.csrf) window.dispatchEvent(new Event('signed-out'));
		throw error;
	}
	return body;
}

export function url(path, query = {}) {
	const given = Object.entries(query).filter(([, v]) => v !== null && v !== undefined && v !== '');
	return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
export const seg = encodeURIComponent;
export const get = (path, query, signal) => ask(url(path, query), { signal });
export const post = (path, body = {}) => ask(path, {
	method: 'POST', headers: { 'Content-Type': 'application/json', 'X-CSRF-Token': session.csrf },
	body: typeof body === 'string' ? body : JSON.stringify(body),
});
export async function signIn(fields) {
	Object.assign(session, await ask('api/session', {
		method: 'POST', headers: { 'X-CSRF-Token': 'sign-in' }, body: new URLSearchParams(fields),
	}));
}
export const resume = async () => Object.assign(session, await ask('api/session'));
export async function signOut() {
	await post('api/session/end').catch(() => {});
	session.csrf = null;
}
export const mayAct = () => session.about?.actions === true;
