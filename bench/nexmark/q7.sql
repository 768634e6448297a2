-- Highest bid: the bids with the highest price of ten seconds.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM highest (price BIGINT);
CREATE PUMP highest_pump AS INSERT INTO highest
  SELECT STREAM MAX(price) FROM bid GROUP BY STEP(bid.ROWTIME BY INTERVAL '10' SECOND);

-- A bid at the end of a window is in the next one: the last millisecond of what
-- the join keeps is left out.
CREATE STREAM result_stream (auction BIGINT, price BIGINT, bidder BIGINT);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM b.auction, b.price, b.bidder
  FROM bid OVER (RANGE INTERVAL '10' SECOND PRECEDING) AS b JOIN highest AS h ON b.price = h.price
  WHERE b.ROWTIME < h.ROWTIME;
