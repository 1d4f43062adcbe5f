const { PrismaPg } = require('@prisma/adapter-pg');

// The schema engine that comes with Prisma, as WASM: the other one is a binary from elsewhere.
module.exports = {
	schema: 'schema.prisma',
	migrations: { path: process.env.EQ_PRISMA_MIGRATIONS },
	experimental: { adapter: true },
	engine: 'js',
	adapter: async () => new PrismaPg({ connectionString: process.env.EQ_PRISMA_URL }),
};
