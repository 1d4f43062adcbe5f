SET session_replication_role = replica;
CREATE ROLE up_producer;
CREATE ROLE up_worker;
CREATE ROLE up_consumer;
CREATE ROLE up_observer;
CREATE ROLE up_admin;
CREATE ROLE up_by_hand;
CREATE ROLE "Up Owner";
--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18
-- Dumped by pg_dump version 15.18

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: archive; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA archive;


--
-- Name: crm; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA crm;


--
-- Name: event_queue; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA event_queue;


--
-- Name: event_queue; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS event_queue VERSION '0.1.0';
DELETE FROM event_queue.queue;
DELETE FROM event_queue.event_watermark;


--
-- Name: EXTENSION event_queue; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION event_queue IS 'event store, job queue and automation rules inside the database';


--
-- Name: do_task(event_queue.claimed_job); Type: FUNCTION; Schema: crm; Owner: -
--

CREATE FUNCTION crm.do_task(job event_queue.claimed_job) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
	INSERT INTO crm.task VALUES (job.job_id, job.name, job.payload);
END
$$;


--
-- Name: on_event(event_queue.event_store); Type: FUNCTION; Schema: crm; Owner: -
--

CREATE FUNCTION crm.on_event(event event_queue.event_store) RETURNS void
    LANGUAGE sql
    AS $$
	INSERT INTO crm.seen VALUES (event.position)
$$;


--
-- Name: sum_up(jsonb, event_queue.event_store); Type: FUNCTION; Schema: crm; Owner: -
--

CREATE FUNCTION crm.sum_up(state jsonb, event event_queue.event_store) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
	SELECT jsonb_build_object('sum', coalesce((state ->> 'sum')::int, 0) + (event.event_data ->> 'n')::int)
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: event_store_old3; Type: TABLE; Schema: archive; Owner: -
--

CREATE TABLE archive.event_store_old3 (
    "position" bigint NOT NULL,
    id uuid NOT NULL,
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    aggregate_type text NOT NULL COLLATE pg_catalog."C",
    aggregate_id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    event_type text NOT NULL COLLATE pg_catalog."C",
    event_data jsonb NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE event_store_old3; Type: COMMENT; Schema: archive; Owner: -
--

COMMENT ON TABLE archive.event_store_old3 IS 'A partition of event_store.';


--
-- Name: job_ids; Type: VIEW; Schema: crm; Owner: -
--

CREATE VIEW crm.job_ids AS
 SELECT job.job_id
   FROM event_queue.job;


--
-- Name: lead; Type: TABLE; Schema: crm; Owner: -
--

CREATE TABLE crm.lead (
    lead_id text NOT NULL,
    tenant text,
    score integer DEFAULT 0
);


--
-- Name: my_jobs; Type: VIEW; Schema: crm; Owner: -
--

CREATE VIEW crm.my_jobs AS
 SELECT jobs.job_id,
    jobs.queue,
    jobs.name,
    jobs.state
   FROM event_queue.jobs;


--
-- Name: my_ready_jobs; Type: VIEW; Schema: crm; Owner: -
--

CREATE VIEW crm.my_ready_jobs WITH (security_barrier='true') AS
 SELECT my_jobs.job_id,
    my_jobs.queue,
    my_jobs.name,
    my_jobs.state
   FROM crm.my_jobs
  WHERE (my_jobs.state = 'ready'::text);


--
-- Name: VIEW my_ready_jobs; Type: COMMENT; Schema: crm; Owner: -
--

COMMENT ON VIEW crm.my_ready_jobs IS 'A view on a view on a view of ours.';


--
-- Name: owners; Type: VIEW; Schema: crm; Owner: -
--

CREATE VIEW crm.owners AS
 SELECT rule.name,
    rule.owner
   FROM event_queue.rule;


--
-- Name: seen; Type: TABLE; Schema: crm; Owner: -
--

CREATE TABLE crm.seen (
    "position" bigint
);


--
-- Name: task; Type: TABLE; Schema: crm; Owner: -
--

CREATE TABLE crm.task (
    job_id bigint NOT NULL,
    name text,
    payload jsonb
);


--
-- Name: event_store_p1; Type: TABLE; Schema: event_queue; Owner: -
--

CREATE TABLE event_queue.event_store_p1 (
    CONSTRAINT event_store_p1_first CHECK (("position" >= 21))
)
INHERITS (event_queue.event_store);


--
-- Name: TABLE event_store_p1; Type: COMMENT; Schema: event_queue; Owner: -
--

COMMENT ON TABLE event_queue.event_store_p1 IS 'A partition of event_store.';


--
-- Name: event_store_p2; Type: TABLE; Schema: event_queue; Owner: -
--

CREATE TABLE event_queue.event_store_p2 (
    CONSTRAINT event_store_p2_first CHECK (("position" >= 41))
)
INHERITS (event_queue.event_store);


--
-- Name: TABLE event_store_p2; Type: COMMENT; Schema: event_queue; Owner: -
--

COMMENT ON TABLE event_queue.event_store_p2 IS 'A partition of event_store.';


--
-- Name: job_history_m_202908; Type: TABLE; Schema: event_queue; Owner: -
--

CREATE TABLE event_queue.job_history_m_202908 (
    job_id bigint NOT NULL,
    queue_id integer NOT NULL,
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    priority smallint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    span smallint NOT NULL,
    leased_by text,
    failures integer NOT NULL,
    stalled integer NOT NULL,
    payload jsonb NOT NULL,
    metadata jsonb NOT NULL,
    errors jsonb NOT NULL,
    result jsonb
);


--
-- Name: TABLE job_history_m_202908; Type: COMMENT; Schema: event_queue; Owner: -
--

COMMENT ON TABLE event_queue.job_history_m_202908 IS 'Finished jobs that expire in the month from 2029-08-01 00:00:00+00.';


--
-- Name: job_history_m_202909; Type: TABLE; Schema: event_queue; Owner: -
--

CREATE TABLE event_queue.job_history_m_202909 (
    job_id bigint NOT NULL,
    queue_id integer NOT NULL,
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    priority smallint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    span smallint NOT NULL,
    leased_by text,
    failures integer NOT NULL,
    stalled integer NOT NULL,
    payload jsonb NOT NULL,
    metadata jsonb NOT NULL,
    errors jsonb NOT NULL,
    result jsonb
);


--
-- Name: TABLE job_history_m_202909; Type: COMMENT; Schema: event_queue; Owner: -
--

COMMENT ON TABLE event_queue.job_history_m_202909 IS 'Finished jobs that expire in the month from 2029-09-01 00:00:00+00.';


--
-- Name: job_history_m_202908; Type: TABLE ATTACH; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.job_history ATTACH PARTITION event_queue.job_history_m_202908 FOR VALUES FROM ('2', '2029-08-01 00:00:00+00') TO ('2', '2029-09-01 00:00:00+00');


--
-- Name: job_history_m_202909; Type: TABLE ATTACH; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.job_history ATTACH PARTITION event_queue.job_history_m_202909 FOR VALUES FROM ('2', '2029-09-01 00:00:00+00') TO ('2', '2029-10-01 00:00:00+00');


--
-- Data for Name: event_store_old3; Type: TABLE DATA; Schema: archive; Owner: -
--

COPY archive.event_store_old3 ("position", id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at) FROM stdin;
1	01a21395-bc6a-794f-b2d4-49af7fc58d75	acme	account	A1	1	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.930582+00
2	01a21395-bc6a-7d3f-8b0d-22051a776cba	acme	account	A2	1	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.930828+00
3	01a21395-bc6a-7d81-84e6-bcb75ec3122b	acme	account	A3	1	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.930844+00
4	01a21395-bc6a-7da5-ba60-992cbba7c115	acme	account	A0	1	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.930853+00
5	01a21395-bc6a-7dce-8853-98c582fa236e	acme	account	A1	2	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.930863+00
6	01a21395-bc6a-7def-ad82-cd08337c8f28	acme	account	A2	2	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.930871+00
7	01a21395-bc6a-7e10-b8aa-2520f7bd6fe4	acme	account	A3	2	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.930879+00
8	01a21395-bc6a-7e31-904a-5e40b0b021f6	acme	account	A0	2	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.930887+00
9	01a21395-bc6a-7e51-b98c-e85ee368d39c	acme	account	A1	3	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.930895+00
10	01a21395-bc6a-7e72-aff9-743717e5ea50	acme	account	A2	3	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.930903+00
11	01a21395-bc6a-7e93-9b45-96fe5c555ef3	acme	account	A3	3	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.930911+00
12	01a21395-bc6a-7eb4-88f0-296c24c3face	acme	account	A0	3	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.930919+00
13	01a21395-bc6a-7ed4-ad9f-b3612f129751	acme	account	A1	4	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.930927+00
14	01a21395-bc6a-7ef5-b7f3-f969aa861c06	acme	account	A2	4	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.930935+00
15	01a21395-bc6a-7f16-98da-8345204c1be8	acme	account	A3	4	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.930943+00
16	01a21395-bc6a-7f37-ad56-9a78f571e1dd	acme	account	A0	4	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.930951+00
17	01a21395-bc6a-7f5c-8581-2b3a6b78b459	acme	account	A1	5	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.93096+00
18	01a21395-bc6a-7f7c-b914-47c500ff132a	acme	account	A2	5	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.930968+00
19	01a21395-bc6a-7f9d-a066-edbdd75738d0	acme	account	A3	5	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.930976+00
20	01a21395-bc6a-7fbe-9469-1c451d1daa56	acme	account	A0	5	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.930984+00
\.


--
-- Data for Name: lead; Type: TABLE DATA; Schema: crm; Owner: -
--

COPY crm.lead (lead_id, tenant, score) FROM stdin;
L2	beta	0
L1	acme	1
\.


--
-- Data for Name: seen; Type: TABLE DATA; Schema: crm; Owner: -
--

COPY crm.seen ("position") FROM stdin;
61
62
63
\.


--
-- Data for Name: task; Type: TABLE DATA; Schema: crm; Owner: -
--

COPY crm.task (job_id, name, payload) FROM stdin;
81	do	{"by": "hand"}
\.


--
-- Data for Name: aggregate_snapshot; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.aggregate_snapshot (aggregate_id, aggregate_type, tenant_id, version, "position", state, event_at, reducer, is_base) FROM stdin;
A3	account	acme	10	39	{"sum": 20}	2026-11-25 16:41:49.997687+00	444115209159930789	f
A2	account	acme	10	38	{"sum": 20}	2026-11-25 16:41:49.997678+00	444115209159930789	f
A0	account	acme	10	40	{"sum": 20}	2026-11-25 16:41:49.997696+00	444115209159930789	f
B1	account	beta	5	57	{"sum": 10}	2026-11-25 16:41:50.044275+00	444115209159930789	f
B2	account	beta	5	58	{"sum": 10}	2026-11-25 16:41:50.044284+00	444115209159930789	f
B3	account	beta	5	59	{"sum": 10}	2026-11-25 16:41:50.044294+00	444115209159930789	f
B0	account	beta	5	60	{"sum": 10}	2026-11-25 16:41:50.044304+00	444115209159930789	f
A0	account	acme	5	20	{"sum": 10}	2026-11-25 16:41:49.930984+00	444115209159930789	t
A1	account	acme	5	17	{"sum": 10}	2026-11-25 16:41:49.93096+00	444115209159930789	t
A2	account	acme	5	18	{"sum": 10}	2026-11-25 16:41:49.930968+00	444115209159930789	t
A3	account	acme	5	19	{"sum": 10}	2026-11-25 16:41:49.930976+00	444115209159930789	t
A1	account	acme	10	37	{"sum": 20}	2026-11-25 16:41:49.997668+00	444115209159930789	f
\.


--
-- Data for Name: channel; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.channel (channel_id, name) FROM stdin;
1	leads
\.


--
-- Data for Name: dead_letter; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.dead_letter (job_id, queue_id, tenant_id, name, priority, created_at, died_at, reason, failures, stalled, max_attempts, retry, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors) FROM stdin;
77	3	default	to fail	0	2026-11-25 16:41:51.570129+00	2026-11-25 16:41:51.578869+00	attempts	1	0	1	\N	\N	\N	\N	t	{}	{}	[{"at": "2026-11-25 16:41:51.578861+00", "worker": "psql 20379", "attempt": 1, "context": null, "message": "broken", "sqlstate": "22012"}]
\.


--
-- Data for Name: dropped_queue; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.dropped_queue (queue_id, seen_at) FROM stdin;
\.


--
-- Data for Name: event_partition; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.event_partition (partition_id, name, tenant_id, first_position, last_position, split_off, created_at, archived_at) FROM stdin;
1	event_store_p1	\N	21	40	f	2026-11-25 16:41:49.96311+00	\N
2	event_store_p2	\N	41	\N	f	2026-11-25 16:41:50.012045+00	\N
3	event_store_old3	\N	1	20	t	2026-11-25 16:41:51.106882+00	2026-11-25 16:41:51.151548+00
\.


--
-- Data for Name: event_store; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.event_store ("position", id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at) FROM stdin;
\.


--
-- Data for Name: event_store_p1; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.event_store_p1 ("position", id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at) FROM stdin;
21	01a21395-bcad-74b4-aa8e-c44e6e25716f	acme	account	A1	6	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.997294+00
22	01a21395-bcad-783d-9223-63e732c7352a	acme	account	A2	6	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.997515+00
23	01a21395-bcad-788f-bc94-e606d07a6a40	acme	account	A3	6	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.997535+00
24	01a21395-bcad-78c4-8d09-c5f6bb03fb80	acme	account	A0	6	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.997548+00
25	01a21395-bcad-78ed-9ca1-2893ad0c57f3	acme	account	A1	7	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.997558+00
26	01a21395-bcad-7916-960d-7915f6178c20	acme	account	A2	7	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.997568+00
27	01a21395-bcad-793b-98bf-5957b09ffc85	acme	account	A3	7	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.997577+00
28	01a21395-bcad-7960-9abd-810d39031295	acme	account	A0	7	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.997586+00
29	01a21395-bcad-7985-944a-ef0751d3472f	acme	account	A1	8	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.997595+00
30	01a21395-bcad-79a9-8768-032a6914a1cb	acme	account	A2	8	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.997604+00
31	01a21395-bcad-79ce-8a04-6a9720954770	acme	account	A3	8	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.997613+00
32	01a21395-bcad-79f3-9501-991cf383025d	acme	account	A0	8	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.997622+00
33	01a21395-bcad-7a18-af9d-dd868d1a688c	acme	account	A1	9	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.997631+00
34	01a21395-bcad-7a3d-99ac-502344c871cf	acme	account	A2	9	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.99764+00
35	01a21395-bcad-7a62-8d23-ced9bd8ab665	acme	account	A3	9	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.997649+00
36	01a21395-bcad-7a87-8059-060ef0c5367f	acme	account	A0	9	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:49.997658+00
37	01a21395-bcad-7ab0-97bd-ff07520560cb	acme	account	A1	10	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:49.997668+00
38	01a21395-bcad-7ad9-9312-f23c525bae10	acme	account	A2	10	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:49.997678+00
39	01a21395-bcad-7afd-9ee3-07fdf4b14fcb	acme	account	A3	10	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:49.997687+00
40	01a21395-bcad-7b22-b524-decac83c30f9	acme	account	A0	10	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:49.997696+00
\.


--
-- Data for Name: event_store_p2; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.event_store_p2 ("position", id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at) FROM stdin;
41	01a21395-bcdb-7e10-b930-0866fbac01b0	beta	account	B1	1	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:50.043879+00
42	01a21395-bcdc-71db-9f84-fdebcd65fd1d	beta	account	B2	1	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:50.044116+00
43	01a21395-bcdc-7231-842c-debe84015f3e	beta	account	B3	1	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:50.044137+00
44	01a21395-bcdc-7266-a892-35663e7f7b26	beta	account	B0	1	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:50.04415+00
45	01a21395-bcdc-7297-95ae-4ee33ab9e96a	beta	account	B1	2	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:50.044162+00
46	01a21395-bcdc-72c0-91a2-667528bbfcc9	beta	account	B2	2	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:50.044172+00
47	01a21395-bcdc-72e5-bffb-fd3769cd9e6a	beta	account	B3	2	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:50.044181+00
48	01a21395-bcdc-730e-9d9a-027422403e50	beta	account	B0	2	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:50.044191+00
49	01a21395-bcdc-7333-855f-84f7662680d2	beta	account	B1	3	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:50.0442+00
50	01a21395-bcdc-7358-89ef-f1c51e2c1ee5	beta	account	B2	3	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:50.044209+00
51	01a21395-bcdc-737c-bb46-f668d4723e6d	beta	account	B3	3	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:50.044218+00
52	01a21395-bcdc-73a5-a518-81f21a29c13f	beta	account	B0	3	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:50.044228+00
53	01a21395-bcdc-73ca-a55c-41f89021cd10	beta	account	B1	4	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:50.044237+00
54	01a21395-bcdc-73f3-889b-968527dd6637	beta	account	B2	4	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:50.044247+00
55	01a21395-bcdc-7418-94c9-295cb9754411	beta	account	B3	4	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:50.044256+00
56	01a21395-bcdc-743d-ae5d-befe07340407	beta	account	B0	4	account.added	{"n": 1}	{"actor": "postgres"}	2026-11-25 16:41:50.044265+00
57	01a21395-bcdc-7466-894d-257ba5322127	beta	account	B1	5	account.added	{"n": 2}	{"actor": "postgres"}	2026-11-25 16:41:50.044275+00
58	01a21395-bcdc-748b-be90-eb8adb36d25f	beta	account	B2	5	account.added	{"n": 3}	{"actor": "postgres"}	2026-11-25 16:41:50.044284+00
59	01a21395-bcdc-74b4-9f63-70044d5b59de	beta	account	B3	5	account.added	{"n": 4}	{"actor": "postgres"}	2026-11-25 16:41:50.044294+00
60	01a21395-bcdc-74dd-9aff-5abd71be7721	beta	account	B0	5	account.added	{"n": 0}	{"actor": "postgres"}	2026-11-25 16:41:50.044304+00
61	01a21395-bcec-783d-97e7-e8dfaef0be04	acme	lead	L1	1	lead.inserted	{"new": {"score": 0, "tenant": "acme", "lead_id": "L1"}}	{"actor": "postgres", "table": "crm.lead"}	2026-11-25 16:41:50.060515+00
62	01a21395-bcec-7a9b-ae43-d6856f602c69	beta	lead	L2	1	lead.inserted	{"new": {"score": 0, "tenant": "beta", "lead_id": "L2"}}	{"actor": "postgres", "table": "crm.lead"}	2026-11-25 16:41:50.060663+00
63	01a21395-bcff-7472-889d-7b2af2e2cab0	acme	lead	L1	2	lead.updated	{"new": {"score": 1, "tenant": "acme", "lead_id": "L1"}, "old": {"score": 0, "tenant": "acme", "lead_id": "L1"}, "changed": ["score"]}	{"actor": "postgres", "table": "crm.lead"}	2026-11-25 16:41:50.079278+00
\.


--
-- Data for Name: event_watermark; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.event_watermark (one_row, "position", published_at) FROM stdin;
t	63	2026-11-25 16:41:50.491198+00
\.


--
-- Data for Name: group_rate; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.group_rate (queue_id, tenant_id, group_key, next_at) FROM stdin;
5	default	g1	2026-11-25 16:41:54.121874+00
5	default	g2	2026-11-25 16:41:54.122759+00
\.


--
-- Data for Name: group_review_at; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.group_review_at (queue_id, tenant_id, group_key, review_at) FROM stdin;
\.


--
-- Data for Name: queue; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.queue (queue_id, name, lease, stalled_interval, max_stalled, max_attempts, backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed, rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count, fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, paused, draining, created_at) FROM stdin;
2	snapshots	00:00:30	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	00:01:00	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.128337+00
3	plain	01:00:00	00:00:05	2	3	exponential	00:00:02	01:00:00	0	1000 days	1000 days	\N	00:00:01	\N	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.736233+00
4	fair	01:00:00	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	\N	\N	\N	\N	t	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.744979+00
5	grouped	01:00:00	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	\N	\N	\N	\N	f	1	100	00:00:01	block	t	f	f	2026-11-25 16:41:49.750043+00
6	limited	01:00:00	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	100	00:00:01	2	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.755176+00
7	handled	00:00:30	00:00:05	2	3	fixed	00:00:01	01:00:00	0	1000 days	\N	\N	00:00:01	\N	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.75909+00
8	ruled	01:00:00	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.760187+00
10	once	00:00:30	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.762528+00
9	paused	00:00:30	00:00:05	2	3	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	\N	\N	\N	\N	f	1	\N	00:00:01	block	t	t	f	2026-11-25 16:41:49.762528+00
1	rule-calls	00:00:30	00:00:05	2	7	exponential	00:00:02	01:00:00	0	\N	\N	\N	00:00:01	\N	00:00:10	\N	\N	\N	f	1	\N	00:00:01	block	t	f	f	2026-11-25 16:41:49.128337+00
\.


--
-- Data for Name: handler; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.handler (handler_id, queue_id, job_name, owner, function, time_limit, created_at) FROM stdin;
1	7	do	Up Owner	crm.do_task	00:00:10	2026-11-25 16:41:49.842244+00
\.


--
-- Data for Name: job; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job (job_id, queue_id, lane, run_at, created_at, failures, stalled, priority, blocked, cancel, has_dependents, unique_until_claim, tenant_id, name, max_attempts, retry, time_limit, lease_token, leased_until, claimed_at, lease_pid, leased_by, group_key, unique_key, payload, metadata, errors, progress) FROM stdin;
1	8	0	2026-11-25 16:41:49.932964+00	2026-11-25 16:41:49.932994+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bc6a-7da5-ba60-992cbba7c115", "data": {"n": 4}, "version": 1, "metadata": {"actor": "postgres"}, "position": 4, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.930853+00:00", "event_type": "account.added", "aggregate_id": "A0", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bc6a-7da5-ba60-992cbba7c115", "correlation_id": "01a21395-bc6a-7da5-ba60-992cbba7c115", "event_position": 4}	\N	\N
2	8	0	2026-11-25 16:41:49.933419+00	2026-11-25 16:41:49.933422+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bc6a-7e51-b98c-e85ee368d39c", "data": {"n": 4}, "version": 3, "metadata": {"actor": "postgres"}, "position": 9, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.930895+00:00", "event_type": "account.added", "aggregate_id": "A1", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bc6a-7e51-b98c-e85ee368d39c", "correlation_id": "01a21395-bc6a-7e51-b98c-e85ee368d39c", "event_position": 9}	\N	\N
3	8	0	2026-11-25 16:41:49.933666+00	2026-11-25 16:41:49.933667+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bc6a-7ef5-b7f3-f969aa861c06", "data": {"n": 4}, "version": 4, "metadata": {"actor": "postgres"}, "position": 14, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.930935+00:00", "event_type": "account.added", "aggregate_id": "A2", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bc6a-7ef5-b7f3-f969aa861c06", "correlation_id": "01a21395-bc6a-7ef5-b7f3-f969aa861c06", "event_position": 14}	\N	\N
4	8	0	2026-11-25 16:41:49.933899+00	2026-11-25 16:41:49.9339+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bc6a-7f9d-a066-edbdd75738d0", "data": {"n": 4}, "version": 5, "metadata": {"actor": "postgres"}, "position": 19, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.930976+00:00", "event_type": "account.added", "aggregate_id": "A3", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bc6a-7f9d-a066-edbdd75738d0", "correlation_id": "01a21395-bc6a-7f9d-a066-edbdd75738d0", "event_position": 19}	\N	\N
46	4	655350227	2026-11-25 16:41:51.538078+00	2026-11-25 16:41:51.538079+00	0	0	5	0	f	f	f	t1	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 4}	\N	\N	\N
47	4	806862203	2026-11-25 16:41:51.538089+00	2026-11-25 16:41:51.53809+00	0	0	5	0	f	f	f	t2	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 5}	\N	\N	\N
9	8	0	2026-11-25 16:41:50.006517+00	2026-11-25 16:41:50.006526+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcad-78c4-8d09-c5f6bb03fb80", "data": {"n": 4}, "version": 6, "metadata": {"actor": "postgres"}, "position": 24, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.997548+00:00", "event_type": "account.added", "aggregate_id": "A0", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcad-78c4-8d09-c5f6bb03fb80", "correlation_id": "01a21395-bcad-78c4-8d09-c5f6bb03fb80", "event_position": 24}	\N	\N
10	8	0	2026-11-25 16:41:50.006944+00	2026-11-25 16:41:50.006946+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcad-7985-944a-ef0751d3472f", "data": {"n": 4}, "version": 8, "metadata": {"actor": "postgres"}, "position": 29, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.997595+00:00", "event_type": "account.added", "aggregate_id": "A1", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcad-7985-944a-ef0751d3472f", "correlation_id": "01a21395-bcad-7985-944a-ef0751d3472f", "event_position": 29}	\N	\N
11	8	0	2026-11-25 16:41:50.007323+00	2026-11-25 16:41:50.007326+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcad-7a3d-99ac-502344c871cf", "data": {"n": 4}, "version": 9, "metadata": {"actor": "postgres"}, "position": 34, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.99764+00:00", "event_type": "account.added", "aggregate_id": "A2", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcad-7a3d-99ac-502344c871cf", "correlation_id": "01a21395-bcad-7a3d-99ac-502344c871cf", "event_position": 34}	\N	\N
12	8	0	2026-11-25 16:41:50.007564+00	2026-11-25 16:41:50.007565+00	0	0	5	0	f	f	f	acme	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcad-7afd-9ee3-07fdf4b14fcb", "data": {"n": 4}, "version": 10, "metadata": {"actor": "postgres"}, "position": 39, "tenant_id": "acme", "created_at": "2026-11-25T16:41:49.997687+00:00", "event_type": "account.added", "aggregate_id": "A3", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcad-7afd-9ee3-07fdf4b14fcb", "correlation_id": "01a21395-bcad-7afd-9ee3-07fdf4b14fcb", "event_position": 39}	\N	\N
17	8	0	2026-11-25 16:41:50.048373+00	2026-11-25 16:41:50.048391+00	0	0	5	0	f	f	f	beta	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcdc-7266-a892-35663e7f7b26", "data": {"n": 4}, "version": 1, "metadata": {"actor": "postgres"}, "position": 44, "tenant_id": "beta", "created_at": "2026-11-25T16:41:50.04415+00:00", "event_type": "account.added", "aggregate_id": "B0", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcdc-7266-a892-35663e7f7b26", "correlation_id": "01a21395-bcdc-7266-a892-35663e7f7b26", "event_position": 44}	\N	\N
18	8	0	2026-11-25 16:41:50.048836+00	2026-11-25 16:41:50.048838+00	0	0	5	0	f	f	f	beta	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcdc-7333-855f-84f7662680d2", "data": {"n": 4}, "version": 3, "metadata": {"actor": "postgres"}, "position": 49, "tenant_id": "beta", "created_at": "2026-11-25T16:41:50.0442+00:00", "event_type": "account.added", "aggregate_id": "B1", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcdc-7333-855f-84f7662680d2", "correlation_id": "01a21395-bcdc-7333-855f-84f7662680d2", "event_position": 49}	\N	\N
19	8	0	2026-11-25 16:41:50.049075+00	2026-11-25 16:41:50.049076+00	0	0	5	0	f	f	f	beta	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcdc-73f3-889b-968527dd6637", "data": {"n": 4}, "version": 4, "metadata": {"actor": "postgres"}, "position": 54, "tenant_id": "beta", "created_at": "2026-11-25T16:41:50.044247+00:00", "event_type": "account.added", "aggregate_id": "B2", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcdc-73f3-889b-968527dd6637", "correlation_id": "01a21395-bcdc-73f3-889b-968527dd6637", "event_position": 54}	\N	\N
20	8	0	2026-11-25 16:41:50.056167+00	2026-11-25 16:41:50.056178+00	0	0	5	0	f	f	f	beta	big	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"id": "01a21395-bcdc-74b4-9f63-70044d5b59de", "data": {"n": 4}, "version": 5, "metadata": {"actor": "postgres"}, "position": 59, "tenant_id": "beta", "created_at": "2026-11-25T16:41:50.044294+00:00", "event_type": "account.added", "aggregate_id": "B3", "aggregate_type": "account"}	{"rule": "to queue", "event_id": "01a21395-bcdc-74b4-9f63-70044d5b59de", "correlation_id": "01a21395-bcdc-74b4-9f63-70044d5b59de", "event_position": 59}	\N	\N
43	4	655350227	2026-11-25 16:41:51.538001+00	2026-11-25 16:41:51.538014+00	0	0	5	0	f	f	f	t1	fair	\N	\N	\N	03000000-1200-856a-a766-e0783fb31ecc	2026-11-25 17:41:54.126886+00	2026-11-25 16:41:54.126886+00	\N	outside	\N	\N	{"i": 1}	\N	\N	\N
31	3	0	2026-11-25 16:41:51.495847+00	2026-11-25 16:41:51.495848+00	0	0	5	0	f	f	f	acme	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 4}	\N	\N	\N
32	3	0	2026-11-25 16:41:51.495852+00	2026-11-25 16:41:51.495853+00	0	0	5	0	f	f	f	beta	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 5}	\N	\N	\N
33	3	0	2026-11-25 16:41:51.495857+00	2026-11-25 16:41:51.495858+00	0	0	5	0	f	f	f	acme	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 6}	\N	\N	\N
34	3	0	2026-11-25 16:41:51.495862+00	2026-11-25 16:41:51.495863+00	0	0	5	0	f	f	f	beta	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 7}	\N	\N	\N
35	3	0	2026-11-25 16:41:51.495867+00	2026-11-25 16:41:51.495868+00	0	0	5	0	f	f	f	acme	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 8}	\N	\N	\N
36	3	0	2026-11-25 16:41:51.495872+00	2026-11-25 16:41:51.495873+00	0	0	5	0	f	f	f	beta	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 9}	\N	\N	\N
37	3	0	2026-11-25 16:41:51.495877+00	2026-11-25 16:41:51.495877+00	0	0	5	0	f	f	f	acme	ready	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 10}	\N	\N	\N
38	3	0	2100-01-01 00:00:00+00	2026-11-25 16:41:51.517274+00	0	0	5	0	f	f	f	default	later	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
39	3	0	2026-11-25 16:41:51.521768+00	2026-11-25 16:41:51.521784+00	0	0	2	0	f	f	f	default	own way	9	(fixed,00:00:07,,0.5,)	\N	\N	\N	\N	\N	\N	\N	\N	{}	{"m": 1}	\N	\N
40	10	0	2026-11-25 16:41:51.528921+00	2026-11-25 16:41:51.531092+00	0	0	5	0	f	f	f	default	rejecting	\N	\N	\N	\N	\N	\N	\N	\N	\N	r	{}	\N	\N	\N
41	10	0	2026-11-25 16:41:51.531213+00	2026-11-25 16:41:51.531642+00	0	0	5	0	f	f	f	default	throttled	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
42	10	0	2026-11-26 16:41:51.531655+00	2026-11-25 16:41:51.531665+00	0	0	5	0	f	f	f	default	debounced	\N	\N	\N	\N	\N	\N	\N	\N	\N	d	{}	\N	\N	\N
45	4	1252904867	2026-11-25 16:41:51.538072+00	2026-11-25 16:41:51.538072+00	0	0	5	0	f	f	f	t0	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 3}	\N	\N	\N
28	3	0	2026-11-25 16:41:51.49552+00	2026-11-25 16:41:51.495739+00	0	0	5	0	f	f	f	beta	ready	\N	\N	\N	03000000-0300-8399-ae09-22af4d8a3a2d	2026-11-25 17:41:54.099404+00	2026-11-25 16:41:54.099404+00	\N	outside	\N	\N	{"i": 1}	\N	\N	\N
29	3	0	2026-11-25 16:41:51.495831+00	2026-11-25 16:41:51.495832+00	0	0	5	0	f	f	f	acme	ready	\N	\N	\N	03000000-0400-8399-ae09-22af4d8a3a2d	2026-11-25 17:41:54.099404+00	2026-11-25 16:41:54.099404+00	\N	outside	\N	\N	{"i": 2}	\N	\N	\N
30	3	0	2026-11-25 16:41:51.495841+00	2026-11-25 16:41:51.495842+00	0	0	5	0	f	f	f	beta	ready	\N	\N	\N	03000000-0500-8399-ae09-22af4d8a3a2d	2026-11-25 17:41:54.099404+00	2026-11-25 16:41:54.099404+00	\N	outside	\N	\N	{"i": 3}	\N	\N	\N
44	4	806862203	2026-11-25 16:41:51.538059+00	2026-11-25 16:41:51.53806+00	0	0	5	0	f	f	f	t2	fair	\N	\N	\N	03000000-1300-856a-a766-e0783fb31ecc	2026-11-25 17:41:54.126886+00	2026-11-25 16:41:54.126886+00	\N	outside	\N	\N	{"i": 2}	\N	\N	\N
48	4	1252904867	2026-11-25 16:41:51.538095+00	2026-11-25 16:41:51.538096+00	0	0	5	0	f	f	f	t0	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 6}	\N	\N	\N
49	4	655350227	2026-11-25 16:41:51.538133+00	2026-11-25 16:41:51.538133+00	0	0	5	0	f	f	f	t1	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 7}	\N	\N	\N
50	4	806862203	2026-11-25 16:41:51.538139+00	2026-11-25 16:41:51.538139+00	0	0	5	0	f	f	f	t2	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 8}	\N	\N	\N
51	4	1252904867	2026-11-25 16:41:51.538144+00	2026-11-25 16:41:51.538145+00	0	0	5	0	f	f	f	t0	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 9}	\N	\N	\N
52	4	655350227	2026-11-25 16:41:51.538149+00	2026-11-25 16:41:51.53815+00	0	0	5	0	f	f	f	t1	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 10}	\N	\N	\N
53	4	806862203	2026-11-25 16:41:51.538155+00	2026-11-25 16:41:51.538155+00	0	0	5	0	f	f	f	t2	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 11}	\N	\N	\N
54	4	1252904867	2026-11-25 16:41:51.53816+00	2026-11-25 16:41:51.53816+00	0	0	5	0	f	f	f	t0	fair	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 12}	\N	\N	\N
55	4	0	2100-01-01 00:00:00+00	2026-11-25 16:41:51.544219+00	0	0	5	0	f	f	f	t1	later	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
59	5	0	2026-11-25 16:41:51.547898+00	2026-11-25 16:41:51.547898+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g1	\N	{"i": 4}	\N	\N	\N
60	5	0	2026-11-25 16:41:51.547905+00	2026-11-25 16:41:51.547905+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g2	\N	{"i": 5}	\N	\N	\N
61	5	0	2026-11-25 16:41:51.547911+00	2026-11-25 16:41:51.547911+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g0	\N	{"i": 6}	\N	\N	\N
62	5	0	2026-11-25 16:41:51.547917+00	2026-11-25 16:41:51.547918+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g1	\N	{"i": 7}	\N	\N	\N
63	5	0	2026-11-25 16:41:51.547924+00	2026-11-25 16:41:51.547924+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g2	\N	{"i": 8}	\N	\N	\N
64	5	0	2026-11-25 16:41:51.54793+00	2026-11-25 16:41:51.547931+00	0	0	5	1	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g0	\N	{"i": 9}	\N	\N	\N
58	5	0	2026-11-25 16:41:51.54971+00	2026-11-25 16:41:51.54789+00	0	0	5	0	f	f	f	default	in group	\N	\N	\N	\N	\N	\N	\N	\N	g0	\N	{"i": 3}	\N	\N	\N
67	6	0	2026-11-25 16:41:51.551665+00	2026-11-25 16:41:51.551667+00	0	0	5	0	f	f	f	default	limited	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 3}	\N	\N	\N
68	6	0	2026-11-25 16:41:51.551672+00	2026-11-25 16:41:51.551672+00	0	0	5	0	f	f	f	default	limited	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 4}	\N	\N	\N
56	5	0	2026-11-25 16:41:51.549641+00	2026-11-25 16:41:51.547549+00	0	0	5	0	f	f	f	default	in group	\N	\N	\N	04000000-1200-8bc5-b44c-15e6d26f4a2d	2026-11-25 17:41:54.111814+00	2026-11-25 16:41:54.111814+00	\N	outside	g1	\N	{"i": 1}	\N	\N	\N
57	5	0	2026-11-25 16:41:51.549699+00	2026-11-25 16:41:51.547875+00	0	0	5	0	f	f	f	default	in group	\N	\N	\N	04000000-1300-8bc5-b44c-15e6d26f4a2d	2026-11-25 17:41:54.111814+00	2026-11-25 16:41:54.111814+00	\N	outside	g2	\N	{"i": 2}	\N	\N	\N
65	6	0	2026-11-25 16:41:51.551617+00	2026-11-25 16:41:51.551627+00	0	0	5	0	f	f	f	default	limited	\N	\N	\N	04000000-1500-860d-9bae-f4f5389070c3	2026-11-25 17:41:54.109643+00	2026-11-25 16:41:54.109643+00	\N	outside	\N	\N	{"i": 1}	\N	\N	{"percent": 50}
66	6	0	2026-11-25 16:41:51.551657+00	2026-11-25 16:41:51.551658+00	0	0	5	0	f	f	f	default	limited	\N	\N	\N	04000000-1600-860d-9bae-f4f5389070c3	2026-11-25 17:41:54.109643+00	2026-11-25 16:41:54.109643+00	\N	outside	\N	\N	{"i": 2}	\N	\N	{"percent": 50}
69	6	0	2026-11-25 16:41:51.551676+00	2026-11-25 16:41:51.551677+00	0	0	5	0	f	f	f	default	limited	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"i": 5}	\N	\N	\N
70	9	0	2026-11-25 16:41:51.553143+00	2026-11-25 16:41:51.553153+00	0	0	5	0	f	f	f	default	stays	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
71	3	0	2026-11-25 16:41:51.556815+00	2026-11-25 16:41:51.55682+00	0	0	5	0	f	t	f	default	leaf 1	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
72	3	0	2026-11-25 16:41:51.557103+00	2026-11-25 16:41:51.557105+00	0	0	5	0	f	t	f	default	leaf 2	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
73	3	0	2026-11-25 16:41:51.557424+00	2026-11-25 16:41:51.557909+00	0	0	5	2	f	f	f	default	top	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
74	3	0	2026-11-25 16:41:51.561236+00	2026-11-25 16:41:51.561242+00	0	0	5	0	f	t	f	default	of batch	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
75	3	0	2026-11-25 16:41:51.561466+00	2026-11-25 16:41:51.561468+00	0	0	5	0	f	t	f	default	of batch	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
76	3	0	2026-11-25 16:41:51.564568+00	2026-11-25 16:41:51.564911+00	0	0	5	2	f	f	f	default	end of batch	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
80	3	0	2026-11-25 16:41:51.575364+00	2026-11-25 16:41:51.57546+00	0	0	5	2	f	f	f	default	after the dead one	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	\N	\N
78	3	0	2026-11-25 16:41:52.580221+00	2026-11-25 16:41:51.570154+00	1	0	0	0	f	f	f	default	to fail once	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{}	\N	[{"at": "2026-11-25 16:41:51.580227+00", "worker": "psql 20379", "attempt": 1, "context": null, "message": "once", "sqlstate": null}]	\N
82	7	0	2100-01-01 00:00:00+00	2026-11-25 16:41:51.586719+00	0	0	5	0	f	f	f	default	do	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"by": "hand"}	\N	\N	\N
\.


--
-- Data for Name: job_dependency; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_dependency (job_id, depends_on, tenant_id, name, completed_at, result) FROM stdin;
73	71	default	leaf 1	\N	\N
73	72	default	leaf 2	\N	\N
76	74	default	of batch	\N	\N
76	75	default	of batch	\N	\N
80	77	default	to fail	\N	\N
\.


--
-- Data for Name: job_history_early; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_history_early (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, leased_by, failures, stalled, payload, metadata, errors, result) FROM stdin;
\.


--
-- Data for Name: job_history_forever; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_history_forever (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, leased_by, failures, stalled, payload, metadata, errors, result) FROM stdin;
\.


--
-- Data for Name: job_history_m_202908; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_history_m_202908 (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, leased_by, failures, stalled, payload, metadata, errors, result) FROM stdin;
79	3	default	to complete	0	2026-11-25 16:41:51.57016+00	2026-11-25 16:41:51.570159+00	2026-11-25 16:41:51.582615+00	2029-08-21 16:41:51.582615+00	2	psql 20379	0	0	{}	{}	[]	{"done": true}
81	7	default	do	5	2026-11-25 16:41:51.586686+00	2026-11-25 16:41:51.586676+00	2026-11-25 16:41:51.588618+00	2029-08-21 16:41:51.588618+00	2	event_queue executor 0	0	0	{"by": "hand"}	{}	[]	\N
\.


--
-- Data for Name: job_history_m_202909; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_history_m_202909 (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, leased_by, failures, stalled, payload, metadata, errors, result) FROM stdin;
\.


--
-- Data for Name: job_log; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_log (job_id, at, tenant_id, level, message) FROM stdin;
65	2026-11-25 16:41:54.135003+00	default	info	half done
66	2026-11-25 16:41:54.143783+00	default	info	half done
\.


--
-- Data for Name: job_review; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_review (review_id, queue_id, tenant_id, group_key, job_id) FROM stdin;
\.


--
-- Data for Name: job_throttle; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.job_throttle (queue_id, tenant_id, unique_key, job_id, until) FROM stdin;
10	default	t	41	2109-01-14 16:41:51.531216+00
\.


--
-- Data for Name: partition_policy; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.partition_policy (one_row, every, keep, archive_schema) FROM stdin;
t	\N	1000 days	archive
\.


--
-- Data for Name: reducer; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.reducer (aggregate_type, function, owner, snapshot_every, created_at) FROM stdin;
account	crm.sum_up	postgres	5	2026-11-25 16:41:49.819548+00
of-nobody	crm.sum_up	up_gone	5	2026-11-25 16:41:49.831093+00
\.


--
-- Data for Name: rule; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.rule (rule_id, name, owner, tenant_id, event_pattern, condition, queue_id, job_name, payload, delay, priority, function, enabled, start_position, created_at) FROM stdin;
1	to queue	Up Owner	\N	account.*	(event_data ->> 'n')::int > 3	8	big	\N	\N	5	\N	t	0	2026-11-25 16:41:49.851734+00
2	to function	postgres	\N	lead.**	\N	\N	\N	\N	\N	5	crm.on_event	t	0	2026-11-25 16:41:49.870357+00
3	off	postgres	\N	x.y	\N	8	x	\N	\N	5	\N	f	0	2026-11-25 16:41:49.871869+00
\.


--
-- Data for Name: rule_checkpoint; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.rule_checkpoint (one_row, "position") FROM stdin;
t	63
\.


--
-- Data for Name: schedule; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.schedule (schedule_id, name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, enabled, next_run, last_run, created_at) FROM stdin;
1	nightly	0 3 * * *	Europe/Berlin	7	do	{"by": "schedule"}	5	default	t	2026-11-26 02:00:00+00	\N	2026-11-25 16:41:49.880821+00
\.


--
-- Data for Name: snapshot_checkpoint; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.snapshot_checkpoint (one_row, "position") FROM stdin;
t	63
\.


--
-- Data for Name: subscription; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.subscription (subscription_id, name, tenant_id, filter, buckets, created_at) FROM stdin;
1	reader	\N	\N	3	2026-11-25 16:41:51.169834+00
2	acme	acme	{"event_type": "account.*"}	1	2026-11-25 16:41:51.169834+00
\.


--
-- Data for Name: subscription_bucket; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.subscription_bucket (subscription_id, bucket, "position", moved_at) FROM stdin;
1	0	21	2026-11-25 16:41:51.432159+00
1	1	21	2026-11-25 16:41:51.432194+00
1	2	21	2026-11-25 16:41:51.432198+00
2	0	24	2026-11-25 16:41:51.480844+00
\.


--
-- Data for Name: subscription_parked; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.subscription_parked (subscription_id, tenant_id, aggregate_type, aggregate_id, "position", resume_after, error, retry, parked_at) FROM stdin;
2	acme	account	A1	21	\N	it failed	f	2026-11-25 16:41:51.453784+00
\.


--
-- Data for Name: tenant_role; Type: TABLE DATA; Schema: event_queue; Owner: -
--

COPY event_queue.tenant_role (role_name, tenant_id) FROM stdin;
up_producer	acme
up_consumer	acme
\.


--
-- Name: channel_channel_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.channel_channel_id_seq', 1, true);


--
-- Name: event_generation; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.event_generation', 3160351252964974453, true);


--
-- Name: event_partition_partition_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.event_partition_partition_id_seq', 3, true);


--
-- Name: event_position; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.event_position', 1, true);


--
-- Name: handler_handler_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.handler_handler_id_seq', 1, true);


--
-- Name: job_job_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.job_job_id_seq', 82, true);


--
-- Name: job_review_review_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.job_review_review_id_seq', 9, true);


--
-- Name: queue_queue_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.queue_queue_id_seq', 10, true);


--
-- Name: rule_rule_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.rule_rule_id_seq', 3, true);


--
-- Name: schedule_schedule_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.schedule_schedule_id_seq', 1, true);


--
-- Name: subscription_subscription_id_seq; Type: SEQUENCE SET; Schema: event_queue; Owner: -
--

SELECT pg_catalog.setval('event_queue.subscription_subscription_id_seq', 2, true);


--
-- Name: event_store_old3 event_store_old3_aggregate_key; Type: CONSTRAINT; Schema: archive; Owner: -
--

ALTER TABLE ONLY archive.event_store_old3
    ADD CONSTRAINT event_store_old3_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version);


--
-- Name: event_store_old3 event_store_old3_id_key; Type: CONSTRAINT; Schema: archive; Owner: -
--

ALTER TABLE ONLY archive.event_store_old3
    ADD CONSTRAINT event_store_old3_id_key UNIQUE (id, tenant_id);


--
-- Name: event_store_old3 event_store_old3_pkey; Type: CONSTRAINT; Schema: archive; Owner: -
--

ALTER TABLE ONLY archive.event_store_old3
    ADD CONSTRAINT event_store_old3_pkey PRIMARY KEY ("position");


--
-- Name: lead lead_pkey; Type: CONSTRAINT; Schema: crm; Owner: -
--

ALTER TABLE ONLY crm.lead
    ADD CONSTRAINT lead_pkey PRIMARY KEY (lead_id);


--
-- Name: task task_pkey; Type: CONSTRAINT; Schema: crm; Owner: -
--

ALTER TABLE ONLY crm.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (job_id);


--
-- Name: event_store_p1 event_store_p1_aggregate_key; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p1
    ADD CONSTRAINT event_store_p1_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version);


--
-- Name: event_store_p1 event_store_p1_id_key; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p1
    ADD CONSTRAINT event_store_p1_id_key UNIQUE (id, tenant_id);


--
-- Name: event_store_p1 event_store_p1_last; Type: CHECK CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE event_queue.event_store_p1
    ADD CONSTRAINT event_store_p1_last CHECK (("position" <= 40)) NOT VALID;


--
-- Name: event_store_p1 event_store_p1_pkey; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p1
    ADD CONSTRAINT event_store_p1_pkey PRIMARY KEY ("position");


--
-- Name: event_store_p2 event_store_p2_aggregate_key; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p2
    ADD CONSTRAINT event_store_p2_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version);


--
-- Name: event_store_p2 event_store_p2_id_key; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p2
    ADD CONSTRAINT event_store_p2_id_key UNIQUE (id, tenant_id);


--
-- Name: event_store_p2 event_store_p2_pkey; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.event_store_p2
    ADD CONSTRAINT event_store_p2_pkey PRIMARY KEY ("position");


--
-- Name: job_history_m_202908 job_history_m_202908_pkey; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.job_history_m_202908
    ADD CONSTRAINT job_history_m_202908_pkey PRIMARY KEY (job_id, completed_at);


--
-- Name: job_history_m_202909 job_history_m_202909_pkey; Type: CONSTRAINT; Schema: event_queue; Owner: -
--

ALTER TABLE ONLY event_queue.job_history_m_202909
    ADD CONSTRAINT job_history_m_202909_pkey PRIMARY KEY (job_id, completed_at);


--
-- Name: event_store_old3_by_event_type; Type: INDEX; Schema: archive; Owner: -
--

CREATE INDEX event_store_old3_by_event_type ON archive.event_store_old3 USING btree (event_type, "position");


--
-- Name: event_store_old3_caused_by; Type: INDEX; Schema: archive; Owner: -
--

CREATE INDEX event_store_old3_caused_by ON archive.event_store_old3 USING btree (((metadata ->> 'causation_id'::text))) WHERE (metadata ? 'causation_id'::text);


--
-- Name: event_store_p1_by_event_type; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX event_store_p1_by_event_type ON event_queue.event_store_p1 USING btree (event_type, "position");


--
-- Name: event_store_p1_caused_by; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX event_store_p1_caused_by ON event_queue.event_store_p1 USING btree (((metadata ->> 'causation_id'::text))) WHERE (metadata ? 'causation_id'::text);


--
-- Name: event_store_p2_by_event_type; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX event_store_p2_by_event_type ON event_queue.event_store_p2 USING btree (event_type, "position");


--
-- Name: event_store_p2_caused_by; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX event_store_p2_caused_by ON event_queue.event_store_p2 USING btree (((metadata ->> 'causation_id'::text))) WHERE (metadata ? 'causation_id'::text);


--
-- Name: job_history_m_202908_expr_idx; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX job_history_m_202908_expr_idx ON event_queue.job_history_m_202908 USING btree (((metadata ->> 'event_id'::text))) WHERE (metadata ? 'event_id'::text);


--
-- Name: job_history_m_202908_queue_id_completed_at_job_id_idx; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX job_history_m_202908_queue_id_completed_at_job_id_idx ON event_queue.job_history_m_202908 USING btree (queue_id, completed_at, job_id);


--
-- Name: job_history_m_202909_expr_idx; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX job_history_m_202909_expr_idx ON event_queue.job_history_m_202909 USING btree (((metadata ->> 'event_id'::text))) WHERE (metadata ? 'event_id'::text);


--
-- Name: job_history_m_202909_queue_id_completed_at_job_id_idx; Type: INDEX; Schema: event_queue; Owner: -
--

CREATE INDEX job_history_m_202909_queue_id_completed_at_job_id_idx ON event_queue.job_history_m_202909 USING btree (queue_id, completed_at, job_id);


--
-- Name: event_store_old3 refuse_change; Type: TRIGGER; Schema: archive; Owner: -
--

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON archive.event_store_old3 FOR EACH ROW EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE archive.event_store_old3 ENABLE ALWAYS TRIGGER refuse_change;


--
-- Name: event_store_old3 refuse_truncate; Type: TRIGGER; Schema: archive; Owner: -
--

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON archive.event_store_old3 FOR EACH STATEMENT EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE archive.event_store_old3 ENABLE ALWAYS TRIGGER refuse_truncate;


--
-- Name: lead event_queue_notify_1; Type: TRIGGER; Schema: crm; Owner: -
--

CREATE TRIGGER event_queue_notify_1 AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON crm.lead FOR EACH STATEMENT EXECUTE FUNCTION event_queue.notify_change('1');


--
-- Name: lead event_queue_record_changes; Type: TRIGGER; Schema: crm; Owner: -
--

CREATE TRIGGER event_queue_record_changes AFTER INSERT OR DELETE OR UPDATE ON crm.lead FOR EACH ROW EXECUTE FUNCTION event_queue.record_change('lead', 'lead_id', 'tenant', 'lead');


--
-- Name: event_store_p1 refuse_change; Type: TRIGGER; Schema: event_queue; Owner: -
--

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON event_queue.event_store_p1 FOR EACH ROW EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE event_queue.event_store_p1 ENABLE ALWAYS TRIGGER refuse_change;


--
-- Name: event_store_p2 refuse_change; Type: TRIGGER; Schema: event_queue; Owner: -
--

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON event_queue.event_store_p2 FOR EACH ROW EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE event_queue.event_store_p2 ENABLE ALWAYS TRIGGER refuse_change;


--
-- Name: event_store_p1 refuse_truncate; Type: TRIGGER; Schema: event_queue; Owner: -
--

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_queue.event_store_p1 FOR EACH STATEMENT EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE event_queue.event_store_p1 ENABLE ALWAYS TRIGGER refuse_truncate;


--
-- Name: event_store_p2 refuse_truncate; Type: TRIGGER; Schema: event_queue; Owner: -
--

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_queue.event_store_p2 FOR EACH STATEMENT EXECUTE FUNCTION event_queue.refuse_change();

ALTER TABLE event_queue.event_store_p2 ENABLE ALWAYS TRIGGER refuse_truncate;


--
-- Name: event_store_old3; Type: ROW SECURITY; Schema: archive; Owner: -
--

ALTER TABLE archive.event_store_old3 ENABLE ROW LEVEL SECURITY;

--
-- Name: event_store_old3 tenant_isolation; Type: POLICY; Schema: archive; Owner: -
--

CREATE POLICY tenant_isolation ON archive.event_store_old3 USING (event_queue.tenant_visible(tenant_id));


--
-- Name: event_store_p1; Type: ROW SECURITY; Schema: event_queue; Owner: -
--

ALTER TABLE event_queue.event_store_p1 ENABLE ROW LEVEL SECURITY;

--
-- Name: event_store_p2; Type: ROW SECURITY; Schema: event_queue; Owner: -
--

ALTER TABLE event_queue.event_store_p2 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_m_202908; Type: ROW SECURITY; Schema: event_queue; Owner: -
--

ALTER TABLE event_queue.job_history_m_202908 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_m_202909; Type: ROW SECURITY; Schema: event_queue; Owner: -
--

ALTER TABLE event_queue.job_history_m_202909 ENABLE ROW LEVEL SECURITY;

--
-- Name: event_store_p1 tenant_isolation; Type: POLICY; Schema: event_queue; Owner: -
--

CREATE POLICY tenant_isolation ON event_queue.event_store_p1 USING (event_queue.tenant_visible(tenant_id));


--
-- Name: event_store_p2 tenant_isolation; Type: POLICY; Schema: event_queue; Owner: -
--

CREATE POLICY tenant_isolation ON event_queue.event_store_p2 USING (event_queue.tenant_visible(tenant_id));


--
-- Name: job_history_m_202908 tenant_isolation; Type: POLICY; Schema: event_queue; Owner: -
--

CREATE POLICY tenant_isolation ON event_queue.job_history_m_202908 USING (event_queue.tenant_visible(tenant_id));


--
-- Name: job_history_m_202909 tenant_isolation; Type: POLICY; Schema: event_queue; Owner: -
--

CREATE POLICY tenant_isolation ON event_queue.job_history_m_202909 USING (event_queue.tenant_visible(tenant_id));


--
-- Name: SCHEMA crm; Type: ACL; Schema: -; Owner: -
--

GRANT ALL ON SCHEMA crm TO "Up Owner";


--
-- Name: SCHEMA event_queue; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA event_queue TO up_producer;
GRANT USAGE ON SCHEMA event_queue TO up_worker;
GRANT USAGE ON SCHEMA event_queue TO up_consumer;
GRANT USAGE ON SCHEMA event_queue TO up_observer;
GRANT USAGE ON SCHEMA event_queue TO up_admin;
GRANT USAGE ON SCHEMA event_queue TO "Up Owner";
GRANT USAGE ON SCHEMA event_queue TO up_by_hand;


--
-- Name: FUNCTION do_task(job event_queue.claimed_job); Type: ACL; Schema: crm; Owner: -
--

GRANT ALL ON FUNCTION crm.do_task(job event_queue.claimed_job) TO "Up Owner";


--
-- Name: TABLE event_store; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.event_store TO up_producer;
GRANT SELECT ON TABLE event_queue.event_store TO up_consumer;
GRANT SELECT ON TABLE event_queue.event_store TO up_observer;
GRANT SELECT ON TABLE event_queue.event_store TO up_admin;
GRANT SELECT ON TABLE event_queue.event_store TO "Up Owner";


--
-- Name: FUNCTION on_event(event event_queue.event_store); Type: ACL; Schema: crm; Owner: -
--

GRANT ALL ON FUNCTION crm.on_event(event event_queue.event_store) TO "Up Owner";


--
-- Name: FUNCTION sum_up(state jsonb, event event_queue.event_store); Type: ACL; Schema: crm; Owner: -
--

GRANT ALL ON FUNCTION crm.sum_up(state jsonb, event event_queue.event_store) TO "Up Owner";


--
-- Name: FUNCTION ack(name text, "position" bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.ack(name text, "position" bigint) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.ack(name text, "position" bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.ack(name text, "position" bigint) TO "Up Owner";


--
-- Name: FUNCTION ack_parked(name text, "position" bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.ack_parked(name text, "position" bigint) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.ack_parked(name text, "position" bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.ack_parked(name text, "position" bigint) TO "Up Owner";


--
-- Name: FUNCTION aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO up_producer;
GRANT ALL ON FUNCTION event_queue.aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO up_observer;
GRANT ALL ON FUNCTION event_queue.aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.aggregate_diff(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO "Up Owner";


--
-- Name: FUNCTION aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.aggregate_state(aggregate_type text, aggregate_id text, at_version integer, at_time timestamp with time zone, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION aggregate_version(aggregate_type text, aggregate_id text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.aggregate_version(aggregate_type text, aggregate_id text, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.aggregate_version(aggregate_type text, aggregate_id text, tenant_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.aggregate_version(aggregate_type text, aggregate_id text, tenant_id text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.aggregate_version(aggregate_type text, aggregate_id text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.aggregate_version(aggregate_type text, aggregate_id text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION alter_queue(name text, settings jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.alter_queue(name text, settings jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.alter_queue(name text, settings jsonb) TO "Up Owner";


--
-- Name: FUNCTION append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version integer, id uuid, metadata jsonb, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version integer, id uuid, metadata jsonb, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version integer, id uuid, metadata jsonb, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version integer, id uuid, metadata jsonb, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version text, id uuid, metadata jsonb, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version text, id uuid, metadata jsonb, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version text, id uuid, metadata jsonb, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.append(aggregate_type text, aggregate_id text, event_type text, event_data jsonb, expected_version text, id uuid, metadata jsonb, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION append_batch(batch jsonb, tenant_id text, OUT aggregate_type text, OUT aggregate_id text, OUT "position" bigint, OUT version integer, OUT id uuid, OUT duplicate boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.append_batch(batch jsonb, tenant_id text, OUT aggregate_type text, OUT aggregate_id text, OUT "position" bigint, OUT version integer, OUT id uuid, OUT duplicate boolean) TO up_producer;
GRANT ALL ON FUNCTION event_queue.append_batch(batch jsonb, tenant_id text, OUT aggregate_type text, OUT aggregate_id text, OUT "position" bigint, OUT version integer, OUT id uuid, OUT duplicate boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.append_batch(batch jsonb, tenant_id text, OUT aggregate_type text, OUT aggregate_id text, OUT "position" bigint, OUT version integer, OUT id uuid, OUT duplicate boolean) TO "Up Owner";


--
-- Name: FUNCTION append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version integer, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version integer, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version integer, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version integer, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version text, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.append_many(aggregate_type text, aggregate_id text, events jsonb, expected_version text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION apply_queue_settings(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.apply_queue_settings() TO up_admin;
GRANT ALL ON FUNCTION event_queue.apply_queue_settings() TO "Up Owner";


--
-- Name: FUNCTION archive_partition(name text, archive_schema text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.archive_partition(name text, archive_schema text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.archive_partition(name text, archive_schema text) TO "Up Owner";


--
-- Name: PROCEDURE await_job(IN job_id bigint, IN timeout interval, INOUT outcome jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON PROCEDURE event_queue.await_job(IN job_id bigint, IN timeout interval, INOUT outcome jsonb) TO up_producer;
GRANT ALL ON PROCEDURE event_queue.await_job(IN job_id bigint, IN timeout interval, INOUT outcome jsonb) TO up_worker;
GRANT ALL ON PROCEDURE event_queue.await_job(IN job_id bigint, IN timeout interval, INOUT outcome jsonb) TO up_admin;
GRANT ALL ON PROCEDURE event_queue.await_job(IN job_id bigint, IN timeout interval, INOUT outcome jsonb) TO "Up Owner";


--
-- Name: FUNCTION bury_dependents(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.bury_dependents() TO up_admin;
GRANT ALL ON FUNCTION event_queue.bury_dependents() TO "Up Owner";


--
-- Name: FUNCTION cancel_job(job_id bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.cancel_job(job_id bigint) TO up_producer;
GRANT ALL ON FUNCTION event_queue.cancel_job(job_id bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.cancel_job(job_id bigint) TO "Up Owner";


--
-- Name: FUNCTION change_priority(job_id bigint, priority integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.change_priority(job_id bigint, priority integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.change_priority(job_id bigint, priority integer) TO "Up Owner";


--
-- Name: FUNCTION check_filter(filter jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.check_filter(filter jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.check_filter(filter jsonb) TO "Up Owner";


--
-- Name: FUNCTION check_name(what text, value text, max_bytes integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.check_name(what text, value text, max_bytes integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.check_name(what text, value text, max_bytes integer) TO "Up Owner";


--
-- Name: FUNCTION check_payload(payload jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.check_payload(payload jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.check_payload(payload jsonb) TO "Up Owner";


--
-- Name: FUNCTION check_queue_settings(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.check_queue_settings() TO up_admin;
GRANT ALL ON FUNCTION event_queue.check_queue_settings() TO "Up Owner";


--
-- Name: FUNCTION claim(queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.claim(queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean) TO up_worker;
GRANT ALL ON FUNCTION event_queue.claim(queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.claim(queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean) TO "Up Owner";


--
-- Name: PROCEDURE claim_wait(IN queue text, IN "limit" integer, IN timeout interval, INOUT jobs jsonb, IN worker text, IN lease interval, IN tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON PROCEDURE event_queue.claim_wait(IN queue text, IN "limit" integer, IN timeout interval, INOUT jobs jsonb, IN worker text, IN lease interval, IN tenant_id text) TO up_worker;
GRANT ALL ON PROCEDURE event_queue.claim_wait(IN queue text, IN "limit" integer, IN timeout interval, INOUT jobs jsonb, IN worker text, IN lease interval, IN tenant_id text) TO up_admin;
GRANT ALL ON PROCEDURE event_queue.claim_wait(IN queue text, IN "limit" integer, IN timeout interval, INOUT jobs jsonb, IN worker text, IN lease interval, IN tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION complete(job_id bigint, lease_token uuid, result jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.complete(job_id bigint, lease_token uuid, result jsonb) TO up_worker;
GRANT ALL ON FUNCTION event_queue.complete(job_id bigint, lease_token uuid, result jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.complete(job_id bigint, lease_token uuid, result jsonb) TO "Up Owner";


--
-- Name: FUNCTION complete_and_claim(job_id bigint, lease_token uuid, queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, result jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.complete_and_claim(job_id bigint, lease_token uuid, queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, result jsonb) TO up_worker;
GRANT ALL ON FUNCTION event_queue.complete_and_claim(job_id bigint, lease_token uuid, queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, result jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.complete_and_claim(job_id bigint, lease_token uuid, queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, result jsonb) TO "Up Owner";


--
-- Name: FUNCTION complete_many(job_ids bigint[], lease_tokens uuid[], results jsonb[]); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.complete_many(job_ids bigint[], lease_tokens uuid[], results jsonb[]) TO up_worker;
GRANT ALL ON FUNCTION event_queue.complete_many(job_ids bigint[], lease_tokens uuid[], results jsonb[]) TO up_admin;
GRANT ALL ON FUNCTION event_queue.complete_many(job_ids bigint[], lease_tokens uuid[], results jsonb[]) TO "Up Owner";


--
-- Name: FUNCTION complete_many_and_claim(job_ids bigint[], lease_tokens uuid[], queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, results jsonb[]); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.complete_many_and_claim(job_ids bigint[], lease_tokens uuid[], queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, results jsonb[]) TO up_worker;
GRANT ALL ON FUNCTION event_queue.complete_many_and_claim(job_ids bigint[], lease_tokens uuid[], queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, results jsonb[]) TO up_admin;
GRANT ALL ON FUNCTION event_queue.complete_many_and_claim(job_ids bigint[], lease_tokens uuid[], queue text, "limit" integer, worker text, lease interval, job_names text[], tenant_id text, session_bound boolean, results jsonb[]) TO "Up Owner";


--
-- Name: FUNCTION config_changed(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.config_changed() TO up_admin;
GRANT ALL ON FUNCTION event_queue.config_changed() TO "Up Owner";


--
-- Name: FUNCTION count_row(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.count_row() TO up_admin;
GRANT ALL ON FUNCTION event_queue.count_row() TO "Up Owner";


--
-- Name: FUNCTION create_event_index(by text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_event_index(by text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_event_index(by text) TO "Up Owner";


--
-- Name: FUNCTION create_event_partition(tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_event_partition(tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_event_partition(tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION create_prisma_view(schema text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_prisma_view(schema text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_prisma_view(schema text) TO "Up Owner";


--
-- Name: FUNCTION create_queue(name text, lease interval, stalled_interval interval, max_stalled integer, max_attempts integer, backoff text, backoff_delay interval, backoff_max interval, backoff_jitter double precision, keep_completed interval, keep_failed interval, rate_limit integer, rate_interval interval, max_concurrency integer, sla interval, backoff_intervals interval[], keep_completed_count integer, keep_failed_count integer, fair boolean, group_concurrency integer, group_rate_limit integer, group_rate_interval interval, group_retry text, durable boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_queue(name text, lease interval, stalled_interval interval, max_stalled integer, max_attempts integer, backoff text, backoff_delay interval, backoff_max interval, backoff_jitter double precision, keep_completed interval, keep_failed interval, rate_limit integer, rate_interval interval, max_concurrency integer, sla interval, backoff_intervals interval[], keep_completed_count integer, keep_failed_count integer, fair boolean, group_concurrency integer, group_rate_limit integer, group_rate_interval interval, group_retry text, durable boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_queue(name text, lease interval, stalled_interval interval, max_stalled integer, max_attempts integer, backoff text, backoff_delay interval, backoff_max interval, backoff_jitter double precision, keep_completed interval, keep_failed interval, rate_limit integer, rate_interval interval, max_concurrency integer, sla interval, backoff_intervals interval[], keep_completed_count integer, keep_failed_count integer, fair boolean, group_concurrency integer, group_rate_limit integer, group_rate_interval interval, group_retry text, durable boolean) TO "Up Owner";


--
-- Name: FUNCTION create_rule(name text, event_pattern text, condition text, queue text, job_name text, payload jsonb, delay interval, priority integer, function text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_rule(name text, event_pattern text, condition text, queue text, job_name text, payload jsonb, delay interval, priority integer, function text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_rule(name text, event_pattern text, condition text, queue text, job_name text, payload jsonb, delay interval, priority integer, function text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION create_schedule(name text, cron text, queue text, job_name text, payload jsonb, time_zone text, priority integer, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_schedule(name text, cron text, queue text, job_name text, payload jsonb, time_zone text, priority integer, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_schedule(name text, cron text, queue text, job_name text, payload jsonb, time_zone text, priority integer, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION create_subscription(name text, filter jsonb, start bigint, buckets integer, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.create_subscription(name text, filter jsonb, start bigint, buckets integer, tenant_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.create_subscription(name text, filter jsonb, start bigint, buckets integer, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.create_subscription(name text, filter jsonb, start bigint, buckets integer, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION cron_next(expression text, time_zone text, after timestamp with time zone); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.cron_next(expression text, time_zone text, after timestamp with time zone) TO up_admin;
GRANT ALL ON FUNCTION event_queue.cron_next(expression text, time_zone text, after timestamp with time zone) TO "Up Owner";


--
-- Name: FUNCTION current_tenant(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.current_tenant() TO up_admin;
GRANT ALL ON FUNCTION event_queue.current_tenant() TO "Up Owner";


--
-- Name: FUNCTION dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb) TO up_producer;
GRANT ALL ON FUNCTION event_queue.dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb) TO up_worker;
GRANT ALL ON FUNCTION event_queue.dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb) TO up_observer;
GRANT ALL ON FUNCTION event_queue.dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.dependency_results(job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamp with time zone, OUT result jsonb) TO "Up Owner";


--
-- Name: FUNCTION discard_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.discard_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.discard_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer) TO "Up Owner";


--
-- Name: FUNCTION discard_dead(job_id bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.discard_dead(job_id bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.discard_dead(job_id bigint) TO "Up Owner";


--
-- Name: FUNCTION discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION drain_queue(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drain_queue(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drain_queue(name text) TO "Up Owner";


--
-- Name: FUNCTION drop_event_index(by text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drop_event_index(by text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drop_event_index(by text) TO "Up Owner";


--
-- Name: FUNCTION drop_queue(name text, force boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drop_queue(name text, force boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drop_queue(name text, force boolean) TO "Up Owner";


--
-- Name: FUNCTION drop_rule(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drop_rule(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drop_rule(name text) TO "Up Owner";


--
-- Name: FUNCTION drop_schedule(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drop_schedule(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drop_schedule(name text) TO "Up Owner";


--
-- Name: FUNCTION drop_subscription(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.drop_subscription(name text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.drop_subscription(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.drop_subscription(name text) TO "Up Owner";


--
-- Name: FUNCTION enqueue(queue text, name text, payload jsonb, delay interval, run_at timestamp with time zone, priority integer, max_attempts integer, backoff text, backoff_delay interval, unique_key text, metadata jsonb, tenant_id text, group_key text, time_limit interval, unique_mode text, unique_until text, unique_window interval, depends_on bigint[], backoff_max interval, backoff_jitter double precision, backoff_intervals interval[]); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.enqueue(queue text, name text, payload jsonb, delay interval, run_at timestamp with time zone, priority integer, max_attempts integer, backoff text, backoff_delay interval, unique_key text, metadata jsonb, tenant_id text, group_key text, time_limit interval, unique_mode text, unique_until text, unique_window interval, depends_on bigint[], backoff_max interval, backoff_jitter double precision, backoff_intervals interval[]) TO up_producer;
GRANT ALL ON FUNCTION event_queue.enqueue(queue text, name text, payload jsonb, delay interval, run_at timestamp with time zone, priority integer, max_attempts integer, backoff text, backoff_delay interval, unique_key text, metadata jsonb, tenant_id text, group_key text, time_limit interval, unique_mode text, unique_until text, unique_window interval, depends_on bigint[], backoff_max interval, backoff_jitter double precision, backoff_intervals interval[]) TO up_admin;
GRANT ALL ON FUNCTION event_queue.enqueue(queue text, name text, payload jsonb, delay interval, run_at timestamp with time zone, priority integer, max_attempts integer, backoff text, backoff_delay interval, unique_key text, metadata jsonb, tenant_id text, group_key text, time_limit interval, unique_mode text, unique_until text, unique_window interval, depends_on bigint[], backoff_max interval, backoff_jitter double precision, backoff_intervals interval[]) TO "Up Owner";


--
-- Name: FUNCTION enqueue_batch(jobs jsonb, finally jsonb, queue text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.enqueue_batch(jobs jsonb, finally jsonb, queue text, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.enqueue_batch(jobs jsonb, finally jsonb, queue text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.enqueue_batch(jobs jsonb, finally jsonb, queue text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION enqueue_flow(flow jsonb, queue text, tenant_id text, level integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.enqueue_flow(flow jsonb, queue text, tenant_id text, level integer) TO up_producer;
GRANT ALL ON FUNCTION event_queue.enqueue_flow(flow jsonb, queue text, tenant_id text, level integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.enqueue_flow(flow jsonb, queue text, tenant_id text, level integer) TO "Up Owner";


--
-- Name: FUNCTION enqueue_jobs(jobs jsonb, queue text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.enqueue_jobs(jobs jsonb, queue text, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.enqueue_jobs(jobs jsonb, queue text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.enqueue_jobs(jobs jsonb, queue text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION enqueue_many(queue text, name text, payloads jsonb[], delay interval, run_at timestamp with time zone, priority integer, group_keys text[], metadata jsonb, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.enqueue_many(queue text, name text, payloads jsonb[], delay interval, run_at timestamp with time zone, priority integer, group_keys text[], metadata jsonb, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.enqueue_many(queue text, name text, payloads jsonb[], delay interval, run_at timestamp with time zone, priority integer, group_keys text[], metadata jsonb, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.enqueue_many(queue text, name text, payloads jsonb[], delay interval, run_at timestamp with time zone, priority integer, group_keys text[], metadata jsonb, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION event_as_json(event event_queue.event_store); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.event_as_json(event event_queue.event_store) TO up_admin;
GRANT ALL ON FUNCTION event_queue.event_as_json(event event_queue.event_store) TO "Up Owner";


--
-- Name: FUNCTION event_bucket(tenant_id text, aggregate_type text, aggregate_id text, buckets integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.event_bucket(tenant_id text, aggregate_type text, aggregate_id text, buckets integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.event_bucket(tenant_id text, aggregate_type text, aggregate_id text, buckets integer) TO "Up Owner";


--
-- Name: FUNCTION event_matches(event_type text, pattern text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.event_matches(event_type text, pattern text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.event_matches(event_type text, pattern text) TO "Up Owner";


--
-- Name: FUNCTION events_loaded(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.events_loaded() TO up_admin;
GRANT ALL ON FUNCTION event_queue.events_loaded() TO "Up Owner";


--
-- Name: FUNCTION explain_job(job_id bigint, OUT reason text, OUT until timestamp with time zone, OUT detail text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.explain_job(job_id bigint, OUT reason text, OUT until timestamp with time zone, OUT detail text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.explain_job(job_id bigint, OUT reason text, OUT until timestamp with time zone, OUT detail text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.explain_job(job_id bigint, OUT reason text, OUT until timestamp with time zone, OUT detail text) TO "Up Owner";


--
-- Name: FUNCTION extend_lease(job_id bigint, lease_token uuid, lease interval); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.extend_lease(job_id bigint, lease_token uuid, lease interval) TO up_worker;
GRANT ALL ON FUNCTION event_queue.extend_lease(job_id bigint, lease_token uuid, lease interval) TO up_admin;
GRANT ALL ON FUNCTION event_queue.extend_lease(job_id bigint, lease_token uuid, lease interval) TO "Up Owner";


--
-- Name: FUNCTION fail(job_id bigint, lease_token uuid, message text, sqlstate text, context text, retry_after interval, final boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.fail(job_id bigint, lease_token uuid, message text, sqlstate text, context text, retry_after interval, final boolean) TO up_worker;
GRANT ALL ON FUNCTION event_queue.fail(job_id bigint, lease_token uuid, message text, sqlstate text, context text, retry_after interval, final boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.fail(job_id bigint, lease_token uuid, message text, sqlstate text, context text, retry_after interval, final boolean) TO "Up Owner";


--
-- Name: FUNCTION fetch_events(name text, "limit" integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.fetch_events(name text, "limit" integer) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.fetch_events(name text, "limit" integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.fetch_events(name text, "limit" integer) TO "Up Owner";


--
-- Name: FUNCTION fetch_parked(name text, "limit" integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.fetch_parked(name text, "limit" integer) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.fetch_parked(name text, "limit" integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.fetch_parked(name text, "limit" integer) TO "Up Owner";


--
-- Name: FUNCTION generation(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.generation() TO up_producer;
GRANT ALL ON FUNCTION event_queue.generation() TO up_consumer;
GRANT ALL ON FUNCTION event_queue.generation() TO up_observer;
GRANT ALL ON FUNCTION event_queue.generation() TO up_admin;
GRANT ALL ON FUNCTION event_queue.generation() TO "Up Owner";


--
-- Name: FUNCTION health(OUT "check" text, OUT ok boolean, OUT detail text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.health(OUT "check" text, OUT ok boolean, OUT detail text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.health(OUT "check" text, OUT ok boolean, OUT detail text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.health(OUT "check" text, OUT ok boolean, OUT detail text) TO "Up Owner";


--
-- Name: FUNCTION history_span(keep interval); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.history_span(keep interval) TO up_admin;
GRANT ALL ON FUNCTION event_queue.history_span(keep interval) TO "Up Owner";


--
-- Name: FUNCTION job_lane(fair boolean, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.job_lane(fair boolean, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.job_lane(fair boolean, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION job_outcome(job_id bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.job_outcome(job_id bigint) TO up_producer;
GRANT ALL ON FUNCTION event_queue.job_outcome(job_id bigint) TO up_worker;
GRANT ALL ON FUNCTION event_queue.job_outcome(job_id bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.job_outcome(job_id bigint) TO "Up Owner";


--
-- Name: FUNCTION jobs_loaded(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.jobs_loaded() TO up_admin;
GRANT ALL ON FUNCTION event_queue.jobs_loaded() TO "Up Owner";


--
-- Name: FUNCTION json_diff(before jsonb, after jsonb, OUT path text[], OUT old_value jsonb, OUT new_value jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.json_diff(before jsonb, after jsonb, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.json_diff(before jsonb, after jsonb, OUT path text[], OUT old_value jsonb, OUT new_value jsonb) TO "Up Owner";


--
-- Name: FUNCTION last_position(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.last_position() TO up_producer;
GRANT ALL ON FUNCTION event_queue.last_position() TO up_consumer;
GRANT ALL ON FUNCTION event_queue.last_position() TO up_observer;
GRANT ALL ON FUNCTION event_queue.last_position() TO up_admin;
GRANT ALL ON FUNCTION event_queue.last_position() TO "Up Owner";


--
-- Name: FUNCTION leave_subscription(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.leave_subscription(name text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.leave_subscription(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.leave_subscription(name text) TO "Up Owner";


--
-- Name: FUNCTION limits_changed(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.limits_changed() TO up_admin;
GRANT ALL ON FUNCTION event_queue.limits_changed() TO "Up Owner";


--
-- Name: FUNCTION lock_subscription_bucket(subscription_id integer, bucket integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.lock_subscription_bucket(subscription_id integer, bucket integer) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.lock_subscription_bucket(subscription_id integer, bucket integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.lock_subscription_bucket(subscription_id integer, bucket integer) TO "Up Owner";


--
-- Name: FUNCTION log_job(job_id bigint, lease_token uuid, message text, level text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.log_job(job_id bigint, lease_token uuid, message text, level text) TO up_worker;
GRANT ALL ON FUNCTION event_queue.log_job(job_id bigint, lease_token uuid, message text, level text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.log_job(job_id bigint, lease_token uuid, message text, level text) TO "Up Owner";


--
-- Name: FUNCTION maintain_history(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.maintain_history() TO up_admin;
GRANT ALL ON FUNCTION event_queue.maintain_history() TO "Up Owner";


--
-- Name: FUNCTION maintain_history_partitions(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.maintain_history_partitions() TO up_admin;
GRANT ALL ON FUNCTION event_queue.maintain_history_partitions() TO "Up Owner";


--
-- Name: FUNCTION maintain_partitions(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.maintain_partitions() TO up_admin;
GRANT ALL ON FUNCTION event_queue.maintain_partitions() TO "Up Owner";


--
-- Name: FUNCTION make_event_index(table_name text, by text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.make_event_index(table_name text, by text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.make_event_index(table_name text, by text) TO "Up Owner";


--
-- Name: FUNCTION make_event_table(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.make_event_table(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.make_event_table(name text) TO "Up Owner";


--
-- Name: FUNCTION map_payload(mapping jsonb, event jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.map_payload(mapping jsonb, event jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.map_payload(mapping jsonb, event jsonb) TO "Up Owner";


--
-- Name: FUNCTION matches_filter(event event_queue.event_store, filter jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.matches_filter(event event_queue.event_store, filter jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.matches_filter(event event_queue.event_store, filter jsonb) TO "Up Owner";


--
-- Name: FUNCTION merge_patch(target jsonb, patch jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.merge_patch(target jsonb, patch jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.merge_patch(target jsonb, patch jsonb) TO "Up Owner";


--
-- Name: FUNCTION move_lanes(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.move_lanes() TO up_admin;
GRANT ALL ON FUNCTION event_queue.move_lanes() TO "Up Owner";


--
-- Name: FUNCTION notify_change(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.notify_change() TO up_admin;
GRANT ALL ON FUNCTION event_queue.notify_change() TO "Up Owner";


--
-- Name: FUNCTION notify_on("table" regclass, channel text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.notify_on("table" regclass, channel text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.notify_on("table" regclass, channel text) TO "Up Owner";


--
-- Name: FUNCTION open_appends(OUT pid integer, OUT lowest_position bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.open_appends(OUT pid integer, OUT lowest_position bigint) TO up_observer;
GRANT ALL ON FUNCTION event_queue.open_appends(OUT pid integer, OUT lowest_position bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.open_appends(OUT pid integer, OUT lowest_position bigint) TO "Up Owner";


--
-- Name: FUNCTION park_event(name text, "position" bigint, error text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.park_event(name text, "position" bigint, error text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.park_event(name text, "position" bigint, error text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.park_event(name text, "position" bigint, error text) TO "Up Owner";


--
-- Name: FUNCTION parked_events(name text, aggregate_type text, aggregate_id text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.parked_events(name text, aggregate_type text, aggregate_id text, tenant_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.parked_events(name text, aggregate_type text, aggregate_id text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.parked_events(name text, aggregate_type text, aggregate_id text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION partition_events(every interval); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.partition_events(every interval) TO up_admin;
GRANT ALL ON FUNCTION event_queue.partition_events(every interval) TO "Up Owner";


--
-- Name: FUNCTION pause_queue(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.pause_queue(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.pause_queue(name text) TO "Up Owner";


--
-- Name: FUNCTION purge_queue(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.purge_queue(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.purge_queue(name text) TO "Up Owner";


--
-- Name: FUNCTION queue_counters(OUT queue_id integer, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint, OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint, OUT cancelled bigint, OUT late bigint, OUT wait_ms double precision, OUT run_ms double precision); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.queue_counters(OUT queue_id integer, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint, OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint, OUT cancelled bigint, OUT late bigint, OUT wait_ms double precision, OUT run_ms double precision) TO up_observer;
GRANT ALL ON FUNCTION event_queue.queue_counters(OUT queue_id integer, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint, OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint, OUT cancelled bigint, OUT late bigint, OUT wait_ms double precision, OUT run_ms double precision) TO up_admin;
GRANT ALL ON FUNCTION event_queue.queue_counters(OUT queue_id integer, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint, OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint, OUT cancelled bigint, OUT late bigint, OUT wait_ms double precision, OUT run_ms double precision) TO "Up Owner";


--
-- Name: FUNCTION queue_depth(queue_id integer, OUT depth bigint, OUT oldest_ready timestamp with time zone, OUT dead bigint, OUT enqueued_per_s double precision, OUT completed_per_s double precision, OUT failed_per_s double precision); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.queue_depth(queue_id integer, OUT depth bigint, OUT oldest_ready timestamp with time zone, OUT dead bigint, OUT enqueued_per_s double precision, OUT completed_per_s double precision, OUT failed_per_s double precision) TO up_observer;
GRANT ALL ON FUNCTION event_queue.queue_depth(queue_id integer, OUT depth bigint, OUT oldest_ready timestamp with time zone, OUT dead bigint, OUT enqueued_per_s double precision, OUT completed_per_s double precision, OUT failed_per_s double precision) TO up_admin;
GRANT ALL ON FUNCTION event_queue.queue_depth(queue_id integer, OUT depth bigint, OUT oldest_ready timestamp with time zone, OUT dead bigint, OUT enqueued_per_s double precision, OUT completed_per_s double precision, OUT failed_per_s double precision) TO "Up Owner";


--
-- Name: FUNCTION queue_id_of(queue text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.queue_id_of(queue text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.queue_id_of(queue text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.queue_id_of(queue text) TO "Up Owner";


--
-- Name: FUNCTION queue_limits(queue_id integer, OUT tokens double precision, OUT active bigint, OUT jobs bigint[]); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.queue_limits(queue_id integer, OUT tokens double precision, OUT active bigint, OUT jobs bigint[]) TO up_observer;
GRANT ALL ON FUNCTION event_queue.queue_limits(queue_id integer, OUT tokens double precision, OUT active bigint, OUT jobs bigint[]) TO up_admin;
GRANT ALL ON FUNCTION event_queue.queue_limits(queue_id integer, OUT tokens double precision, OUT active bigint, OUT jobs bigint[]) TO "Up Owner";


--
-- Name: FUNCTION resolve_tenant(tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.resolve_tenant(tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.resolve_tenant(tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_producer;
GRANT ALL ON FUNCTION event_queue.read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_observer;
GRANT ALL ON FUNCTION event_queue.read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.read_aggregate(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO "Up Owner";


--
-- Name: FUNCTION read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_producer;
GRANT ALL ON FUNCTION event_queue.read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_observer;
GRANT ALL ON FUNCTION event_queue.read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.read_aggregate_backward(aggregate_type text, aggregate_id text, from_version integer, to_version integer, tenant_id text, "limit" bigint) TO "Up Owner";


--
-- Name: FUNCTION read_all(after bigint, "limit" integer, tenant_id text, filter jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.read_all(after bigint, "limit" integer, tenant_id text, filter jsonb) TO up_producer;
GRANT ALL ON FUNCTION event_queue.read_all(after bigint, "limit" integer, tenant_id text, filter jsonb) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.read_all(after bigint, "limit" integer, tenant_id text, filter jsonb) TO up_observer;
GRANT ALL ON FUNCTION event_queue.read_all(after bigint, "limit" integer, tenant_id text, filter jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.read_all(after bigint, "limit" integer, tenant_id text, filter jsonb) TO "Up Owner";


--
-- Name: FUNCTION read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text) TO up_observer;
GRANT ALL ON FUNCTION event_queue.read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.read_plan(filter jsonb, OUT table_name text, OUT index_name text, OUT equal_to text) TO "Up Owner";


--
-- Name: FUNCTION record_change(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.record_change() TO up_admin;
GRANT ALL ON FUNCTION event_queue.record_change() TO "Up Owner";


--
-- Name: FUNCTION record_changes("table" regclass, aggregate_type text, id_column name, tenant_column name, event_prefix text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.record_changes("table" regclass, aggregate_type text, id_column name, tenant_column name, event_prefix text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.record_changes("table" regclass, aggregate_type text, id_column name, tenant_column name, event_prefix text) TO "Up Owner";


--
-- Name: FUNCTION reducer_fingerprint(aggregate_type text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.reducer_fingerprint(aggregate_type text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.reducer_fingerprint(aggregate_type text) TO "Up Owner";


--
-- Name: FUNCTION refuse_change(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.refuse_change() TO up_admin;
GRANT ALL ON FUNCTION event_queue.refuse_change() TO "Up Owner";


--
-- Name: FUNCTION register_handler(queue text, job_name text, function text, time_limit interval); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.register_handler(queue text, job_name text, function text, time_limit interval) TO up_admin;
GRANT ALL ON FUNCTION event_queue.register_handler(queue text, job_name text, function text, time_limit interval) TO "Up Owner";


--
-- Name: FUNCTION register_reducer(aggregate_type text, function text, snapshot_every integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.register_reducer(aggregate_type text, function text, snapshot_every integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.register_reducer(aggregate_type text, function text, snapshot_every integer) TO "Up Owner";


--
-- Name: FUNCTION release(job_id bigint, lease_token uuid, delay interval); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.release(job_id bigint, lease_token uuid, delay interval) TO up_worker;
GRANT ALL ON FUNCTION event_queue.release(job_id bigint, lease_token uuid, delay interval) TO up_admin;
GRANT ALL ON FUNCTION event_queue.release(job_id bigint, lease_token uuid, delay interval) TO "Up Owner";


--
-- Name: FUNCTION replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision) TO up_producer;
GRANT ALL ON FUNCTION event_queue.replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision) TO up_observer;
GRANT ALL ON FUNCTION event_queue.replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision) TO up_admin;
GRANT ALL ON FUNCTION event_queue.replay(filter jsonb, "into" text, from_position bigint, to_position bigint, keep boolean, report_every integer, OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision) TO "Up Owner";


--
-- Name: FUNCTION report_progress(job_id bigint, lease_token uuid, progress jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.report_progress(job_id bigint, lease_token uuid, progress jsonb) TO up_worker;
GRANT ALL ON FUNCTION event_queue.report_progress(job_id bigint, lease_token uuid, progress jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.report_progress(job_id bigint, lease_token uuid, progress jsonb) TO "Up Owner";


--
-- Name: FUNCTION reset_subscription(name text, "position" bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.reset_subscription(name text, "position" bigint) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.reset_subscription(name text, "position" bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.reset_subscription(name text, "position" bigint) TO "Up Owner";


--
-- Name: FUNCTION resume_queue(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.resume_queue(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.resume_queue(name text) TO "Up Owner";


--
-- Name: FUNCTION retry_all(queue text, failed_only boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.retry_all(queue text, failed_only boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.retry_all(queue text, failed_only boolean) TO "Up Owner";


--
-- Name: FUNCTION retry_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.retry_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.retry_all_dead(queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb) TO "Up Owner";


--
-- Name: FUNCTION retry_dead(job_id bigint, payload jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.retry_dead(job_id bigint, payload jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.retry_dead(job_id bigint, payload jsonb) TO "Up Owner";


--
-- Name: FUNCTION retry_parked(name text, aggregate_type text, aggregate_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.retry_parked(name text, aggregate_type text, aggregate_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.retry_parked(name text, aggregate_type text, aggregate_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.retry_parked(name text, aggregate_type text, aggregate_id text) TO "Up Owner";


--
-- Name: FUNCTION revert_aggregate(aggregate_type text, aggregate_id text, to_version integer, expected_version integer, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.revert_aggregate(aggregate_type text, aggregate_id text, to_version integer, expected_version integer, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.revert_aggregate(aggregate_type text, aggregate_id text, to_version integer, expected_version integer, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.revert_aggregate(aggregate_type text, aggregate_id text, to_version integer, expected_version integer, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION review_changed_job(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.review_changed_job() TO up_admin;
GRANT ALL ON FUNCTION event_queue.review_changed_job() TO "Up Owner";


--
-- Name: FUNCTION revive_dead_letters(job_ids bigint[], payload jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.revive_dead_letters(job_ids bigint[], payload jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.revive_dead_letters(job_ids bigint[], payload jsonb) TO "Up Owner";


--
-- Name: FUNCTION run_due_schedules(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.run_due_schedules() TO up_admin;
GRANT ALL ON FUNCTION event_queue.run_due_schedules() TO "Up Owner";


--
-- Name: FUNCTION seal_partition(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.seal_partition(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.seal_partition(name text) TO "Up Owner";


--
-- Name: FUNCTION set_event_retention(keep interval, archive_schema text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.set_event_retention(keep interval, archive_schema text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.set_event_retention(keep interval, archive_schema text) TO "Up Owner";


--
-- Name: FUNCTION set_queue_paused(name text, paused boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.set_queue_paused(name text, paused boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.set_queue_paused(name text, paused boolean) TO "Up Owner";


--
-- Name: FUNCTION set_rule_enabled(name text, enabled boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.set_rule_enabled(name text, enabled boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.set_rule_enabled(name text, enabled boolean) TO "Up Owner";


--
-- Name: FUNCTION set_schedule_enabled(name text, enabled boolean); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.set_schedule_enabled(name text, enabled boolean) TO up_admin;
GRANT ALL ON FUNCTION event_queue.set_schedule_enabled(name text, enabled boolean) TO "Up Owner";


--
-- Name: FUNCTION settle_dead_letters(discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.settle_dead_letters(discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.settle_dead_letters(discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamp with time zone, "limit" integer, payload jsonb) TO "Up Owner";


--
-- Name: FUNCTION split_off_events(up_to timestamp with time zone, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.split_off_events(up_to timestamp with time zone, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.split_off_events(up_to timestamp with time zone, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION subscription_id_of(name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.subscription_id_of(name text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.subscription_id_of(name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.subscription_id_of(name text) TO "Up Owner";


--
-- Name: FUNCTION subscription_members(OUT subscription_id integer, OUT pid integer, OUT buckets integer); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.subscription_members(OUT subscription_id integer, OUT pid integer, OUT buckets integer) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.subscription_members(OUT subscription_id integer, OUT pid integer, OUT buckets integer) TO up_observer;
GRANT ALL ON FUNCTION event_queue.subscription_members(OUT subscription_id integer, OUT pid integer, OUT buckets integer) TO up_admin;
GRANT ALL ON FUNCTION event_queue.subscription_members(OUT subscription_id integer, OUT pid integer, OUT buckets integer) TO "Up Owner";


--
-- Name: FUNCTION take_snapshot(aggregate_type text, aggregate_id text, tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.take_snapshot(aggregate_type text, aggregate_id text, tenant_id text) TO up_producer;
GRANT ALL ON FUNCTION event_queue.take_snapshot(aggregate_type text, aggregate_id text, tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.take_snapshot(aggregate_type text, aggregate_id text, tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION tenant_visible(tenant_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.tenant_visible(tenant_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.tenant_visible(tenant_id text) TO "Up Owner";


--
-- Name: FUNCTION trace(event_id uuid, tenant_id text, OUT depth integer, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamp with time zone, OUT detail jsonb); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.trace(event_id uuid, tenant_id text, OUT depth integer, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamp with time zone, OUT detail jsonb) TO up_observer;
GRANT ALL ON FUNCTION event_queue.trace(event_id uuid, tenant_id text, OUT depth integer, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamp with time zone, OUT detail jsonb) TO up_admin;
GRANT ALL ON FUNCTION event_queue.trace(event_id uuid, tenant_id text, OUT depth integer, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamp with time zone, OUT detail jsonb) TO "Up Owner";


--
-- Name: FUNCTION unpark_if_done(subscription_id integer, tenant_id text, aggregate_type text, aggregate_id text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.unpark_if_done(subscription_id integer, tenant_id text, aggregate_type text, aggregate_id text) TO up_consumer;
GRANT ALL ON FUNCTION event_queue.unpark_if_done(subscription_id integer, tenant_id text, aggregate_type text, aggregate_id text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.unpark_if_done(subscription_id integer, tenant_id text, aggregate_type text, aggregate_id text) TO "Up Owner";


--
-- Name: FUNCTION unregister_handler(queue text, job_name text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.unregister_handler(queue text, job_name text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.unregister_handler(queue text, job_name text) TO "Up Owner";


--
-- Name: FUNCTION unregister_reducer(aggregate_type text); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.unregister_reducer(aggregate_type text) TO up_admin;
GRANT ALL ON FUNCTION event_queue.unregister_reducer(aggregate_type text) TO "Up Owner";


--
-- Name: FUNCTION uuid_v7(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.uuid_v7() TO up_admin;
GRANT ALL ON FUNCTION event_queue.uuid_v7() TO "Up Owner";


--
-- Name: FUNCTION version(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.version() TO up_admin;
GRANT ALL ON FUNCTION event_queue.version() TO "Up Owner";


--
-- Name: PROCEDURE wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON PROCEDURE event_queue.wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint) TO up_producer;
GRANT ALL ON PROCEDURE event_queue.wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint) TO up_consumer;
GRANT ALL ON PROCEDURE event_queue.wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint) TO up_observer;
GRANT ALL ON PROCEDURE event_queue.wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint) TO up_admin;
GRANT ALL ON PROCEDURE event_queue.wait_for_events(IN after bigint, IN wait interval, INOUT watermark bigint) TO "Up Owner";


--
-- Name: FUNCTION watermark(); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.watermark() TO up_producer;
GRANT ALL ON FUNCTION event_queue.watermark() TO up_consumer;
GRANT ALL ON FUNCTION event_queue.watermark() TO up_observer;
GRANT ALL ON FUNCTION event_queue.watermark() TO up_admin;
GRANT ALL ON FUNCTION event_queue.watermark() TO "Up Owner";
GRANT ALL ON FUNCTION event_queue.watermark() TO up_by_hand WITH GRANT OPTION;


--
-- Name: FUNCTION workers(OUT pid integer, OUT kind text, OUT jobs_done bigint, OUT current_job bigint); Type: ACL; Schema: event_queue; Owner: -
--

GRANT ALL ON FUNCTION event_queue.workers(OUT pid integer, OUT kind text, OUT jobs_done bigint, OUT current_job bigint) TO up_observer;
GRANT ALL ON FUNCTION event_queue.workers(OUT pid integer, OUT kind text, OUT jobs_done bigint, OUT current_job bigint) TO up_admin;
GRANT ALL ON FUNCTION event_queue.workers(OUT pid integer, OUT kind text, OUT jobs_done bigint, OUT current_job bigint) TO "Up Owner";


--
-- Name: TABLE job; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.job TO up_producer;
GRANT SELECT ON TABLE event_queue.job TO up_worker;
GRANT SELECT ON TABLE event_queue.job TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job TO "Up Owner";


--
-- Name: TABLE lead; Type: ACL; Schema: crm; Owner: -
--

GRANT ALL ON TABLE crm.lead TO "Up Owner";


--
-- Name: TABLE queue; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.queue TO up_producer;
GRANT SELECT ON TABLE event_queue.queue TO up_worker;
GRANT SELECT ON TABLE event_queue.queue TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.queue TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.queue TO "Up Owner";
GRANT SELECT ON TABLE event_queue.queue TO up_by_hand;


--
-- Name: TABLE jobs; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.jobs TO up_producer;
GRANT SELECT ON TABLE event_queue.jobs TO up_worker;
GRANT SELECT ON TABLE event_queue.jobs TO up_observer;
GRANT SELECT ON TABLE event_queue.jobs TO up_admin;
GRANT SELECT ON TABLE event_queue.jobs TO "Up Owner";
GRANT SELECT ON TABLE event_queue.jobs TO up_by_hand;


--
-- Name: TABLE my_ready_jobs; Type: ACL; Schema: crm; Owner: -
--

GRANT SELECT ON TABLE crm.my_ready_jobs TO up_observer;


--
-- Name: TABLE rule; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.rule TO up_observer;
GRANT SELECT,DELETE ON TABLE event_queue.rule TO up_admin;
GRANT SELECT,DELETE ON TABLE event_queue.rule TO "Up Owner";


--
-- Name: COLUMN rule.enabled; Type: ACL; Schema: event_queue; Owner: -
--

GRANT UPDATE(enabled) ON TABLE event_queue.rule TO up_admin;
GRANT UPDATE(enabled) ON TABLE event_queue.rule TO "Up Owner";


--
-- Name: COLUMN rule.start_position; Type: ACL; Schema: event_queue; Owner: -
--

GRANT UPDATE(start_position) ON TABLE event_queue.rule TO up_admin;
GRANT UPDATE(start_position) ON TABLE event_queue.rule TO "Up Owner";


--
-- Name: TABLE task; Type: ACL; Schema: crm; Owner: -
--

GRANT ALL ON TABLE crm.task TO "Up Owner";


--
-- Name: TABLE aggregate_snapshot; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.aggregate_snapshot TO up_producer;
GRANT SELECT ON TABLE event_queue.aggregate_snapshot TO up_consumer;
GRANT SELECT ON TABLE event_queue.aggregate_snapshot TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.aggregate_snapshot TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.aggregate_snapshot TO "Up Owner";


--
-- Name: TABLE channel; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.channel TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.channel TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.channel TO "Up Owner";


--
-- Name: TABLE dead_letter; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.dead_letter TO up_producer;
GRANT SELECT ON TABLE event_queue.dead_letter TO up_worker;
GRANT SELECT ON TABLE event_queue.dead_letter TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.dead_letter TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.dead_letter TO "Up Owner";


--
-- Name: TABLE dead_letters; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.dead_letters TO up_observer;
GRANT SELECT ON TABLE event_queue.dead_letters TO up_admin;
GRANT SELECT ON TABLE event_queue.dead_letters TO "Up Owner";


--
-- Name: TABLE event_partition; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.event_partition TO up_observer;
GRANT SELECT ON TABLE event_queue.event_partition TO up_admin;
GRANT SELECT ON TABLE event_queue.event_partition TO "Up Owner";


--
-- Name: TABLE group_rate; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.group_rate TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.group_rate TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.group_rate TO "Up Owner";


--
-- Name: TABLE handler; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.handler TO up_observer;
GRANT SELECT,DELETE ON TABLE event_queue.handler TO up_admin;
GRANT SELECT,DELETE ON TABLE event_queue.handler TO "Up Owner";


--
-- Name: TABLE handlers; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.handlers TO up_observer;
GRANT SELECT ON TABLE event_queue.handlers TO up_admin;
GRANT SELECT ON TABLE event_queue.handlers TO "Up Owner";


--
-- Name: TABLE job_history; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.job_history TO up_producer;
GRANT SELECT ON TABLE event_queue.job_history TO up_worker;
GRANT SELECT ON TABLE event_queue.job_history TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_history TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_history TO "Up Owner";


--
-- Name: TABLE history; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.history TO up_producer;
GRANT SELECT ON TABLE event_queue.history TO up_worker;
GRANT SELECT ON TABLE event_queue.history TO up_observer;
GRANT SELECT ON TABLE event_queue.history TO up_admin;
GRANT SELECT ON TABLE event_queue.history TO "Up Owner";


--
-- Name: TABLE job_dependency; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.job_dependency TO up_producer;
GRANT SELECT ON TABLE event_queue.job_dependency TO up_worker;
GRANT SELECT ON TABLE event_queue.job_dependency TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_dependency TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_dependency TO "Up Owner";


--
-- Name: TABLE job_log; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.job_log TO up_producer;
GRANT SELECT,INSERT ON TABLE event_queue.job_log TO up_worker;
GRANT SELECT ON TABLE event_queue.job_log TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_log TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_log TO "Up Owner";


--
-- Name: TABLE job_review; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_review TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_review TO "Up Owner";


--
-- Name: TABLE job_throttle; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_throttle TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.job_throttle TO "Up Owner";


--
-- Name: TABLE partition_policy; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.partition_policy TO up_observer;
GRANT SELECT,INSERT,UPDATE ON TABLE event_queue.partition_policy TO up_admin;
GRANT SELECT,INSERT,UPDATE ON TABLE event_queue.partition_policy TO "Up Owner";


--
-- Name: TABLE queue_depths; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.queue_depths TO up_observer;
GRANT SELECT ON TABLE event_queue.queue_depths TO up_admin;
GRANT SELECT ON TABLE event_queue.queue_depths TO "Up Owner";


--
-- Name: TABLE queue_status; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.queue_status TO up_observer;
GRANT SELECT ON TABLE event_queue.queue_status TO up_admin;
GRANT SELECT ON TABLE event_queue.queue_status TO "Up Owner";


--
-- Name: TABLE reducer; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.reducer TO up_observer;
GRANT SELECT,DELETE ON TABLE event_queue.reducer TO up_admin;
GRANT SELECT,DELETE ON TABLE event_queue.reducer TO "Up Owner";


--
-- Name: TABLE rule_checkpoint; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.rule_checkpoint TO up_observer;
GRANT SELECT ON TABLE event_queue.rule_checkpoint TO up_admin;
GRANT SELECT ON TABLE event_queue.rule_checkpoint TO "Up Owner";


--
-- Name: TABLE rules; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.rules TO up_observer;
GRANT SELECT ON TABLE event_queue.rules TO up_admin;
GRANT SELECT ON TABLE event_queue.rules TO "Up Owner";
GRANT SELECT ON TABLE event_queue.rules TO up_by_hand;


--
-- Name: TABLE schedule; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.schedule TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.schedule TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.schedule TO "Up Owner";


--
-- Name: TABLE schedules; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.schedules TO up_observer;
GRANT SELECT ON TABLE event_queue.schedules TO up_admin;
GRANT SELECT ON TABLE event_queue.schedules TO "Up Owner";


--
-- Name: TABLE subscription; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT,INSERT,DELETE ON TABLE event_queue.subscription TO up_consumer;
GRANT SELECT ON TABLE event_queue.subscription TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription TO "Up Owner";


--
-- Name: TABLE subscription_bucket; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE event_queue.subscription_bucket TO up_consumer;
GRANT SELECT ON TABLE event_queue.subscription_bucket TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription_bucket TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription_bucket TO "Up Owner";


--
-- Name: TABLE subscription_parked; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription_parked TO up_consumer;
GRANT SELECT ON TABLE event_queue.subscription_parked TO up_observer;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription_parked TO up_admin;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event_queue.subscription_parked TO "Up Owner";


--
-- Name: TABLE subscription_status; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.subscription_status TO up_consumer;
GRANT SELECT ON TABLE event_queue.subscription_status TO up_observer;
GRANT SELECT ON TABLE event_queue.subscription_status TO up_admin;
GRANT SELECT ON TABLE event_queue.subscription_status TO "Up Owner";


--
-- Name: TABLE watermark_blockers; Type: ACL; Schema: event_queue; Owner: -
--

GRANT SELECT ON TABLE event_queue.watermark_blockers TO up_observer;
GRANT SELECT ON TABLE event_queue.watermark_blockers TO up_admin;
GRANT SELECT ON TABLE event_queue.watermark_blockers TO "Up Owner";


--
-- PostgreSQL database dump complete
--


