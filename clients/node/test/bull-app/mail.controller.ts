import { Body, Controller, Get, HttpCode, Param, Post } from '@nestjs/common';
import { MailService } from './mail.service';

@Controller()
export class MailController {
	constructor(private readonly mails: MailService) {}

	@Post('mails')
	async create(@Body() body: { to: string }): Promise<{ id: string }> {
		const job = await this.mails.welcome(body.to);
		return { id: String(job.id) };
	}

	@Get('admin/failed')
	async failed(): Promise<unknown> {
		return this.mails.failed();
	}

	@Post('admin/failed/:id/retry')
	@HttpCode(200)
	async retry(@Param('id') id: string): Promise<{ retried: boolean }> {
		return { retried: await this.mails.retry(id) };
	}
}
