-- Monitor new users: who came and sold within the same ten seconds.
CREATE VIEW person AS
  SELECT STREAM "p_id" AS id, "p_name" AS name, "p_city" AS city, "p_state" AS state
  FROM "NEXMARK_001" WHERE "event_type" = 0;
CREATE VIEW auction AS
  SELECT STREAM "a_id" AS id, "a_expires" AS expires, "a_seller" AS seller, "a_category" AS category
  FROM "NEXMARK_001" WHERE "event_type" = 1;

CREATE STREAM newcomer (id BIGINT, name VARCHAR(64));
CREATE PUMP newcomer_pump AS INSERT INTO newcomer
  SELECT STREAM id, name FROM person GROUP BY id, name, STEP(person.ROWTIME BY INTERVAL '10' SECOND);
CREATE STREAM seller (id BIGINT);
CREATE PUMP seller_pump AS INSERT INTO seller
  SELECT STREAM seller FROM auction GROUP BY seller, STEP(auction.ROWTIME BY INTERVAL '10' SECOND);

-- Both stand at the end of their window: rows of one instant meet.
CREATE STREAM result_stream (id BIGINT, name VARCHAR(64));
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM n.id, n.name FROM newcomer AS n JOIN seller AS s ON n.id = s.id;
