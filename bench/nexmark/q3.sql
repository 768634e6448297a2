-- Local item suggestion: who sells in some states and a category.
-- The original joins without a window. The dialect keeps nothing for ever: here
-- an hour of both sides is kept, which is all of a shorter run.
CREATE VIEW person AS
  SELECT STREAM "p_id" AS id, "p_name" AS name, "p_city" AS city, "p_state" AS state
  FROM "NEXMARK_001" WHERE "event_type" = 0;
CREATE VIEW auction AS
  SELECT STREAM "a_id" AS id, "a_expires" AS expires, "a_seller" AS seller, "a_category" AS category
  FROM "NEXMARK_001" WHERE "event_type" = 1;

CREATE STREAM result_stream (name VARCHAR(64), city VARCHAR(32), state VARCHAR(4), auction BIGINT);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM p.name, p.city, p.state, a.id
  FROM (SELECT STREAM id, seller FROM auction WHERE category = 10) OVER (RANGE INTERVAL '1' HOUR PRECEDING) AS a
  JOIN (SELECT STREAM * FROM person WHERE state IN ('OR', 'ID', 'CA')) OVER (RANGE INTERVAL '1' HOUR PRECEDING) AS p
  ON a.seller = p.id;
