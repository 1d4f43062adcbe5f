CREATE TRIGGER other_note AFTER INSERT ON event_queue.job FOR EACH ROW EXECUTE FUNCTION other_note();
