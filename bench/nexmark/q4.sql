-- Average price for a category: the mean of the final prices of its auctions
-- that have ended, each time one does; over an hour, where the original goes back
-- to the beginning.
CREATE VIEW auction AS
  SELECT STREAM "a_id" AS id, "a_expires" AS expires, "a_seller" AS seller, "a_category" AS category
  FROM "NEXMARK_001" WHERE "event_type" = 1;
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

-- Bids that are valid, with what is needed of their auction. Auctions of the
-- generator end within a second, so that one second of them is all that a bid
-- can meet.
CREATE STREAM valid (auction BIGINT, category BIGINT, seller BIGINT, price BIGINT);
CREATE PUMP valid_pump AS INSERT INTO valid
  SELECT STREAM a.id, a.category, a.seller, b.price
  FROM auction OVER (RANGE INTERVAL '1' SECOND PRECEDING) AS a JOIN bid AS b ON a.id = b.auction
  WHERE b.ROWTIME <= a.expires;

-- The first bid opens a window that outlasts its auction: one row per auction,
-- with its final price.
CREATE STREAM winning (category BIGINT, seller BIGINT, final DOUBLE);
CREATE PUMP winning_pump AS INSERT INTO winning
  SELECT STREAM category, seller, CAST(MAX(price) AS DOUBLE)
  FROM valid
  WINDOWED BY STAGGER (PARTITION BY auction, category, seller RANGE INTERVAL '1' SECOND);

CREATE STREAM result_stream (category BIGINT, average DOUBLE);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM category, AVG(final) OVER (PARTITION BY category RANGE INTERVAL '1' HOUR PRECEDING) FROM winning;
