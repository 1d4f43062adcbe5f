/*
 * webhook.c: the child process of "eventq webhook": one job, one HTTP request.
 *
 * The job's payload is {"url": ..., "body": ..., "headers": {...}}; the body is sent as
 * JSON by POST.  A response of 2xx completes the job, whose result is the status and the
 * beginning of the response; 410, and errors that a retry cannot repair, make it a dead
 * letter; all else fails it, and Retry-After says when it is tried again.  Redirects are not
 * followed.
 *
 * Payloads come from tenants.  So no request goes to an address that is not public
 * (webhook_net.c), whatever name resolves to it: the check is of the address that is
 * connected to.  No proxy is used, since it would connect for us.
 *
 * Requests are signed as in Standard Webhooks: webhook-id, webhook-timestamp, and in
 * webhook-signature the HMAC-SHA256 of id.timestamp.body, once for each secret, so that
 * secrets can be rotated.  Tenant and host select the secrets, never the payload: else a
 * tenant could have its requests signed with another one's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "webhook.h"
#include "work.h"

const char *eq_webhook_secrets, *eq_webhook_timeout;
bool eq_webhook_allow_private;

/* Of the answer: so much is read, and so much of it is kept as the job's result. */
#define MAX_ANSWER	(1024 * 1024)
#define KEPT_ANSWER 4096

#define MAX_RETRY_AFTER (24 * 3600)

#define MIN_SECRET 16 /* bytes: shorter ones can be guessed, or are typing errors */

/*
 * A request as text, since eventq reads no JSON: the URL, a line for each header, an empty
 * line, the body.  A line feed in one of the first becomes a control character that is
 * refused below.
 */
const char eq_webhook_payload_sql[] =
	"translate(coalesce(payload ->> 'url', ''), E'\\n', E'\\r') || E'\\n' "
	"|| coalesce((SELECT string_agg(translate(h.key || ': ' || coalesce(h.value, ''), E'\\n', E'\\r') || E'\\n', '') "
	"FROM jsonb_each_text(CASE jsonb_typeof(payload -> 'headers') WHEN 'object' THEN payload -> 'headers' ELSE '{}' END) h), '') "
	"|| E'\\n' || coalesce(payload -> 'body', '{}')::text";

typedef struct Request
{
	char *url;
	char *host;
	struct curl_slist *headers;
	const char *body;
	size_t length;
	EqBuf answer;
	size_t n_answer; /* bytes of it that came */
	bool is_refused; /* an address of its host */
	bool is_tried;	 /* another one was not */
} Request;

/*
 * The file of secrets; NULL, with a line that says why, if it is not there, is not a file
 * (a FIFO would hold up every job), or is others' to read.
 */
static FILE *
open_secrets(void)
{
	int fd = open(eq_webhook_secrets, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	FILE *file;

	if (fd < 0 || fstat(fd, &st) != 0)
		fprintf(stderr, "could not read \"%s\": %s\n", eq_webhook_secrets,
				strerror(errno));
	else if (!S_ISREG(st.st_mode))
		fprintf(stderr, "\"%s\" is not a regular file\n", eq_webhook_secrets);
	else if (st.st_mode & (S_IRWXG | S_IRWXO))
		fprintf(
			stderr,
			"group or others have access to \"%s\": permissions should be u=rw (0600) or less\n",
			eq_webhook_secrets);
	else if ((file = fdopen(fd, "r")) != NULL)
		return file;
	if (fd >= 0)
		close(fd);
	return NULL;
}

/* Before the first job: are the options good? */
bool
eq_webhook_check(EqCli *cli)
{
	double seconds;
	FILE *secrets;

	if (eq_webhook_timeout && (!eq_parse_seconds(eq_webhook_timeout, &seconds) ||
							   seconds < 0.001 || seconds > 3600))
	{
		eq_error(cli, "--timeout takes seconds, from 0.001 to 3600");
		return false;
	}
	if (eq_webhook_secrets == NULL)
		return true;
	secrets = open_secrets();
	if (secrets)
		fclose(secrets);
	return secrets != NULL;
}

static curl_socket_t
open_socket(void *argument, curlsocktype purpose, struct curl_sockaddr *address)
{
	Request *request = argument;

	if (purpose != CURLSOCKTYPE_IPCXN ||
		(!eq_webhook_allow_private && !eq_webhook_is_public(&address->addr)))
	{
		request->is_refused = true;
		return CURL_SOCKET_BAD;
	}
	request->is_tried = true;
	return socket(address->family, address->socktype, address->protocol);
}

static size_t
take_answer(char *bytes, size_t size, size_t n, void *argument)
{
	Request *request = argument;
	size_t kept = KEPT_ANSWER - request->answer.length;

	request->n_answer += size * n;
	eq_buf_bytes(&request->answer, bytes, size * n < kept ? size * n : kept);
	return request->n_answer <= MAX_ANSWER ? size * n : 0;
}

static void
read_all(EqBuf *text)
{
	char bytes[65536];
	ssize_t n;

	while ((n = read(0, bytes, sizeof(bytes))) > 0 || (n < 0 && errno == EINTR))
	{
		if (n > 0)
			eq_buf_bytes(text, bytes, n);
	}
}

static bool
has_control(const char *text)
{
	for (; *text; text++)
	{
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

/* May a payload set this header? */
static bool
is_free_header(const char *line)
{
	static const char *const ours[] = {
		"host", "content-length", "transfer-encoding", "connection", "expect",
		"te",	"trailer",		  "upgrade",		   "keep-alive"};
	size_t length = strcspn(line, ":");

	if (length == 0 || line[length] != ':' ||
		strspn(line, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
					 "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != length ||
		strncasecmp(line, "webhook-", 8) == 0 || strncasecmp(line, "proxy-", 6) == 0)
		return false;
	for (int i = 0; i < lengthof(ours); i++)
	{
		if (strlen(ours[i]) == length && strncasecmp(line, ours[i], length) == 0)
			return false;
	}
	return true;
}

#ifdef CURLU_PUNYCODE
static bool
is_ascii(const char *text)
{
	while (*text && (unsigned char) *text < 0x80)
		text++;
	return *text == '\0';
}
#endif

/*
 * The host of a URL in the one form in which hosts are compared: what stands for the same
 * name (case, %2e, a dot at the end, an IPv4 address as one number, letters beyond ASCII)
 * gives the same text, and secrets are found by what is connected to.  NULL: there is none.
 */
static char *
plain_host(CURLU *url)
{
	char *host = NULL;
	size_t length;

#ifdef CURLU_PUNYCODE
	/* fails where this libcurl, or the locale, knows no such names: then as it is written */
	if (curl_url_get(url, CURLUPART_HOST, &host, CURLU_PUNYCODE) != CURLUE_OK)
		host = NULL;
#endif
	if (host == NULL &&
		curl_url_get(url, CURLUPART_HOST, &host, CURLU_URLDECODE) != CURLUE_OK)
		return NULL;
	for (char *c = host; *c; c++)
	{
		if (*c >= 'A' && *c <= 'Z')
			*c += 'a' - 'A';
	}
	length = strlen(host);
	if (length > 1 && host[length - 1] == '.')
		host[length - 1] = '\0';
	return host;
}

/* Is this host, as the file of secrets writes it, the request's? */
static bool
is_host(const char *written, const char *host)
{
	CURLU *url = curl_url();
	char *plain = NULL;
	EqBuf whole;
	bool same;

	eq_buf_init(&whole);
	eq_buf_printf(&whole, "http://%s/", written);
	if (curl_url_set(url, CURLUPART_URL, whole.data, 0) == CURLUE_OK)
		plain = plain_host(url);
	eq_buf_free(&whole);
	same = strcmp(plain ? plain : written, host) == 0;
	curl_free(plain);
	curl_url_cleanup(url);
	return same;
}

/* Takes the request's text apart; says what no second try can mend. */
static bool
read_request(char *text, size_t length, Request *request)
{
	char *end = text + length, *line = text;
	bool has_type = false;
	CURLU *url = curl_url();
	bool is_url;

	eq_buf_init(&request->answer);
	request->url = line;
	line += strcspn(line, "\n");
	*line++ = '\0';
	is_url = !has_control(request->url) &&
			 curl_url_set(url, CURLUPART_URL, request->url, 0) == CURLUE_OK &&
			 (request->host = plain_host(url)) != NULL &&
			 (strncasecmp(request->url, "http://", 7) == 0 ||
			  strncasecmp(request->url, "https://", 8) == 0);
	curl_url_cleanup(url);
	if (!is_url)
	{
		fprintf(stderr, "the payload's \"url\" is not an http or https URL\n");
		return false;
	}
#ifdef CURLU_PUNYCODE
	if (!is_ascii(request->host))
	{
		fprintf(
			stderr,
			"host \"%s\" has no form in ASCII that can be looked up: write it as \"xn--...\"\n",
			request->host);
		return false;
	}
#endif
	while (line < end && *line != '\n')
	{
		char *next = line + strcspn(line, "\n");
		char *value;

		*next = '\0';
		if (has_control(line) || !is_free_header(line))
		{
			fprintf(stderr, "a webhook can't have one of the payload's headers\n");
			return false;
		}
		has_type = has_type || strncasecmp(line, "content-type:", 13) == 0;
		/* To libcurl, "Name:" means none, and "Name;" one without a value. */
		value = strchr(line, ':');
		if (value[1 + strspn(value + 1, " ")] == '\0')
			strcpy(value, ";");
		request->headers = curl_slist_append(request->headers, line);
		line = next + 1;
	}
	if (!has_type)
		request->headers = curl_slist_append(request->headers,
											 "Content-Type: application/json");
	request->headers = curl_slist_append(request->headers, "Expect:");
	request->body = line + 1;
	request->length = end - request->body;
	return true;
}

/* Adds a signature, "v1," and the HMAC by this secret, to the header. */
static bool
add_signature(EqBuf *header, const char *secret, const EqBuf *message)
{
	unsigned char key[512], hmac[EVP_MAX_MD_SIZE];
	unsigned char text[2 * EVP_MAX_MD_SIZE];
	unsigned int n_hmac;
	int n_key = (int) strlen(secret);

	if (n_key > (int) sizeof(key))
		return false;
	memcpy(key, secret, n_key);
	/* As it is written elsewhere: the key itself in base64 */
	if (strncmp(secret, "whsec_", 6) == 0)
	{
		n_key = EVP_DecodeBlock(key, (const unsigned char *) secret + 6, n_key - 6);
		/* padding is counted */
		for (size_t i = strlen(secret); i > 0 && secret[i - 1] == '='; i--)
			n_key--;
	}
	if (n_key < MIN_SECRET)
		return false;
	if (HMAC(EVP_sha256(), key, n_key, (const unsigned char *) message->data,
			 message->length, hmac, &n_hmac) == NULL)
		return false;
	EVP_EncodeBlock(text, hmac, (int) n_hmac);
	eq_buf_printf(header, "%sv1,%s", header->length > 0 ? " " : "", text);
	return true;
}

/* Signs with the secrets of the first line for this tenant and host; false: there is none. */
static bool
sign(FILE *secrets, const Request *request, const char *tenant, const EqBuf *message,
	 EqBuf *header)
{
	char *line = NULL;
	size_t size = 0;
	bool found = false, good = true;

	while (!found && getline(&line, &size, secrets) > 0)
	{
		char *rest;
		char *of_tenant = strtok_r(line, " \t\r\n", &rest);
		char *of_host = strtok_r(NULL, " \t\r\n", &rest);
		char *secret;

		if (of_tenant == NULL || of_host == NULL || of_tenant[0] == '#' ||
			(strcmp(of_tenant, "*") != 0 && strcmp(of_tenant, tenant) != 0) ||
			(strcmp(of_host, "*") != 0 && !is_host(of_host, request->host)))
			continue;
		while ((secret = strtok_r(NULL, " \t\r\n", &rest)) != NULL)
		{
			found = true;
			good = good && add_signature(header, secret, message);
		}
	}
	free(line);
	if (!found)
		fprintf(stderr, "no line of \"%s\" is for tenant \"%s\" and host \"%s\"\n",
				eq_webhook_secrets, tenant, request->host);
	else if (!good)
		fprintf(stderr, "a secret for tenant \"%s\" and host \"%s\" is not valid\n",
				tenant, request->host);
	return found && good;
}

/*
 * The headers by which the receiver knows who sent it, and whether it came before.
 * Returns 0, or the child's exit status: a file that can't be read is the operator's fault,
 * a host without a secret may be the tenant's, who chooses it.
 */
static int
add_webhook_headers(Request *request)
{
	const char *job_id = getenv("EVENTQ_JOB_ID"), *tenant = getenv("EVENTQ_TENANT");
	long now = (long) time(NULL);
	EqBuf message, signature, header;

	eq_buf_init(&message);
	eq_buf_init(&signature);
	eq_buf_init(&header);
	eq_buf_printf(&message, "job_%s.%ld.", job_id, now);
	eq_buf_bytes(&message, request->body, request->length);
	if (eq_webhook_secrets)
	{
		FILE *secrets = open_secrets();
		bool is_signed;

		if (secrets == NULL)
			return EXIT_TRY_LATER;
		is_signed = sign(secrets, request, tenant ? tenant : "", &message,
						 &signature);
		fclose(secrets);
		if (!is_signed)
			return 1;
	}
	eq_buf_printf(&header, "webhook-id: job_%s", job_id);
	request->headers = curl_slist_append(request->headers, header.data);
	eq_buf_reset(&header);
	eq_buf_printf(&header, "webhook-timestamp: %ld", now);
	request->headers = curl_slist_append(request->headers, header.data);
	if (signature.length == 0)
		return 0;
	eq_buf_reset(&header);
	eq_buf_printf(&header, "webhook-signature: %s", signature.data);
	request->headers = curl_slist_append(request->headers, header.data);
	return 0;
}

/* Decides what the response means for the job: the child's exit status. */
static int
judge_answer(CURL *curl, Request *request, CURLcode code, const char *message)
{
	long status = 0;
	curl_off_t retry_after = 0;
	curl_off_t us = 0;
	EqBuf result;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_WRITE_ERROR && request->n_answer > MAX_ANSWER)
		code = CURLE_OK; /* the status was before it */
	if (code != CURLE_OK)
	{
		bool is_refused = request->is_refused && !request->is_tried &&
						  code == CURLE_COULDNT_CONNECT;

		if (is_refused)
			fprintf(
				stderr,
				"host \"%s\" is at a loopback or private address (eventq webhook --allow-private sends there)\n",
				request->host);
		else
			fprintf(stderr, "no answer from host \"%s\": %s\n", request->host,
					message[0] ? message : curl_easy_strerror(code));
		return is_refused ? EXIT_DEAD : 1;
	}
	if (status >= 200 && status < 300)
	{
		curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME_T, &us);
		eq_buf_init(&result);
		eq_buf_printf(&result, "{\"status\": %ld, \"ms\": %ld, \"answer\": ", status,
					  (long) (us / 1000));
		eq_buf_json_string(&result,
						   request->answer.data ? request->answer.data : "");
		eq_buf_char(&result, '}');
		puts(result.data);
		return 0;
	}
	fprintf(stderr, "host \"%s\" answered with status %ld\n", request->host, status);
	if (status == 410)
		return EXIT_DEAD;
	curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		fprintf(
			stderr, "retry-after: %ld\n",
			(long) (retry_after < MAX_RETRY_AFTER ? retry_after : MAX_RETRY_AFTER));
	return 1;
}

/* In a child, with the job on stdin and in the environment. */
int
eq_webhook_deliver(void)
{
	static char message[CURL_ERROR_SIZE];
	Request request = {0};
	double seconds = 30;
	int status;
	EqBuf text;
	CURL *curl;

	/*
	 * Payloads and the file of secrets are UTF-8; libcurl takes names with letters beyond
	 * ASCII (IDN) to be in the locale's encoding.
	 */
	eq_use_utf8();
	eq_buf_init(&text);
	read_all(&text);
	if (text.length == 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 ||
		(curl = curl_easy_init()) == NULL)
	{
		fprintf(stderr, "could not read the job, or start libcurl\n");
		return EXIT_TRY_LATER;
	}
	if (!read_request(text.data, text.length, &request))
		return EXIT_DEAD;
	status = add_webhook_headers(&request);
	if (status != 0)
		return status;
	if (eq_webhook_timeout)
		(void) eq_parse_seconds(eq_webhook_timeout, &seconds);
	curl_easy_setopt(curl, CURLOPT_URL, request.url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long) (seconds * 1000));
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "eventq/" EQ_VERSION);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, request.headers);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request.length);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body);
	curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &request);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &request);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
	return judge_answer(curl, &request, curl_easy_perform(curl), message);
}
