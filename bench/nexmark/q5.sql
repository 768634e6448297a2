-- Hot items: which auctions had the most bids in ten seconds, every two.
-- The dialect has no hopping window. Counts of two seconds are made, and each
-- counts in the five windows that it is part of: five pumps write it at the ends
-- of its own and of the four following slides.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM slide (auction BIGINT, bids BIGINT);
CREATE PUMP slide_pump AS INSERT INTO slide
  SELECT STREAM auction, COUNT(*) FROM bid GROUP BY auction, STEP(bid.ROWTIME BY INTERVAL '2' SECOND);

CREATE STREAM part (auction BIGINT, bids BIGINT);
CREATE PUMP part_0 AS INSERT INTO part SELECT STREAM auction, bids FROM slide;
CREATE PUMP part_1 AS INSERT INTO part (ROWTIME, auction, bids)
  SELECT STREAM slide.ROWTIME + INTERVAL '2' SECOND, auction, bids FROM slide;
CREATE PUMP part_2 AS INSERT INTO part (ROWTIME, auction, bids)
  SELECT STREAM slide.ROWTIME + INTERVAL '4' SECOND, auction, bids FROM slide;
CREATE PUMP part_3 AS INSERT INTO part (ROWTIME, auction, bids)
  SELECT STREAM slide.ROWTIME + INTERVAL '6' SECOND, auction, bids FROM slide;
CREATE PUMP part_4 AS INSERT INTO part (ROWTIME, auction, bids)
  SELECT STREAM slide.ROWTIME + INTERVAL '8' SECOND, auction, bids FROM slide;

-- Parts stand at the end of a slide, so a group holds those of one instant; its
-- window ended two seconds before the group does.
CREATE STREAM counted (auction BIGINT, bids BIGINT);
CREATE PUMP counted_pump AS INSERT INTO counted
  SELECT STREAM auction, SUM(bids) FROM part GROUP BY auction, STEP(part.ROWTIME BY INTERVAL '2' SECOND);

CREATE STREAM most (bids BIGINT);
CREATE PUMP most_pump AS INSERT INTO most
  SELECT STREAM MAX(bids) FROM counted GROUP BY FLOOR(counted.ROWTIME TO SECOND);

CREATE STREAM result_stream (auction BIGINT, bids BIGINT, window_end TIMESTAMP);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM c.auction, c.bids, c.ROWTIME - INTERVAL '2' SECOND
  FROM counted OVER (RANGE INTERVAL '1' SECOND PRECEDING) AS c JOIN most AS m ON c.bids = m.bids;
