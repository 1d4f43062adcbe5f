-- The event store under the names of a Prisma model, as a view "EventStore" in the
-- first schema of the search_path:
--
--   view EventStore { id String @unique @db.Uuid ... version Int }   (previewFeatures = ["views"])
--
-- Rows are seen with the rights and the tenant of whoever reads the view.
CREATE OR REPLACE VIEW "EventStore" WITH (security_invoker = true) AS
	SELECT id, aggregate_id AS "aggregateId", aggregate_type AS "aggregateType",
		event_type AS "eventType", event_data AS "eventData", created_at AS "createdAt", version
	FROM event_queue.event_store;
