export interface WelcomeMail {
	to: string;
	lead?: string;
}

export interface ReportOrder {
	month: string;
	pages: number;
}
