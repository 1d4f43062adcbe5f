/* An application that has forgotten enableShutdownHooks(). */
import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { AppModule, Settings } from './app';

async function main(): Promise<void> {
	const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error'] });
	const { lines } = app.get(Settings);
	const settings = app.get(Settings);
	process.stdin.on('data', () => {
		settings.open = false;
	});
	process.stdin.unref?.();
	let told = 0;
	setInterval(() => {
		while (told < lines.length) {
			console.log(lines[told++]);
		}
	}, 5).unref();
	process.on('exit', () => {
		while (told < lines.length) {
			console.log(lines[told++]);
		}
	});
	console.log('ready');
}
void main();
