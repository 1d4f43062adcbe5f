// build.js: CommonJS and types by tsc; for ESM one thin module an entry, which names
// what the CommonJS one exports.  So there is one copy of each class in a process,
// whichever way it is loaded, and instanceof holds.
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const dist = path.join(root, 'dist');
fs.rmSync(dist, { recursive: true, force: true });
execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', root], { stdio: 'inherit' });
for (const entry of ['index', 'nestjs/index']) {
	const file = path.join(dist, `${entry}.js`);
	if (!fs.existsSync(file))
		continue;
	const base = path.basename(entry);
	const names = Object.keys(require(file)).filter(name => name !== 'default' && name !== '__esModule');
	const hasDefault = require(file).default !== undefined;
	fs.writeFileSync(path.join(dist, `${entry}.mjs`),
		`import cjs from './${base}.js';\nexport const {\n${names.map(name => `\t${name},\n`).join('')}} = cjs;\n${hasDefault ? 'export default cjs.default;\n' : ''}`);
	fs.writeFileSync(path.join(dist, `${entry}.d.mts`), `export * from './${base}.js';\n${hasDefault ? `export { default } from './${base}.js';\n` : ''}`);
}
const license = path.join(root, '..', '..', 'LICENSE');
if (fs.existsSync(license))
	fs.copyFileSync(license, path.join(root, 'LICENSE'));
