package cli

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

func shardsCommand() *cobra.Command {
	c := &connection{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "shards NAME",
		Short: "Draw a stream's shards: who came from whom, and which part of the key space each has",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			shards, err := listShards(ctx, cl, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), shards)
			}
			drawShards(cmd.OutOrStdout(), shards)
			return nil
		}),
	}
	c.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

const barWidth = 40

// drawShards prints the forest of shards, parents above children. A merged
// shard hangs below its first parent and names the other.
func drawShards(w io.Writer, shards []kinesis.Shard) {
	listed := map[string]bool{}
	for _, s := range shards {
		listed[*s.ShardId] = true
	}
	children := map[string][]kinesis.Shard{}
	var roots []kinesis.Shard
	for _, s := range shards {
		if s.ParentShardId != nil && listed[*s.ParentShardId] {
			children[*s.ParentShardId] = append(children[*s.ParentShardId], s)
		} else {
			roots = append(roots, s)
		}
	}
	slices.SortFunc(roots, byStart)
	for _, s := range children {
		slices.SortFunc(s, byStart)
	}
	width := 0
	var measure func(s kinesis.Shard, depth int)
	measure = func(s kinesis.Shard, depth int) {
		width = max(width, 3*depth+len(*s.ShardId))
		for _, child := range children[*s.ShardId] {
			measure(child, depth+1)
		}
	}
	for _, root := range roots {
		measure(root, 0)
	}
	var draw func(s kinesis.Shard, lead, branch string)
	draw = func(s kinesis.Shard, lead, branch string) {
		state := "open"
		if s.SequenceNumberRange.EndingSequenceNumber != nil {
			state = "closed"
		}
		start, share := position(s)
		label := lead + branch + *s.ShardId
		fmt.Fprintf(w, "%s%s  %-6s  |%s|  %6.2f %%", label, strings.Repeat(" ", width-len([]rune(label))), state, bar(start, share), share*100)
		if s.AdjacentParentShardId != nil {
			fmt.Fprintf(w, "  merged with %s", *s.AdjacentParentShardId)
		}
		fmt.Fprintln(w)
		switch branch {
		case "├─ ":
			lead += "│  "
		case "└─ ":
			lead += "   "
		}
		for i, child := range children[*s.ShardId] {
			next := "├─ "
			if i == len(children[*s.ShardId])-1 {
				next = "└─ "
			}
			draw(child, lead, next)
		}
	}
	for _, root := range roots {
		draw(root, "", "")
	}
}

func byStart(a, b kinesis.Shard) int {
	return hashKey(*a.HashKeyRange.StartingHashKey).Cmp(hashKey(*b.HashKeyRange.StartingHashKey))
}

// position is where in the key space a shard begins and how much of it is its
// own, both from 0 to 1.
func position(s kinesis.Shard) (start, share float64) {
	space := new(big.Float).SetInt(new(big.Int).Lsh(big.NewInt(1), 128))
	from := hashKey(*s.HashKeyRange.StartingHashKey)
	to := hashKey(*s.HashKeyRange.EndingHashKey)
	size := new(big.Int).Sub(to, from)
	size.Add(size, big.NewInt(1))
	start, _ = new(big.Float).Quo(new(big.Float).SetInt(from), space).Float64()
	share, _ = new(big.Float).Quo(new(big.Float).SetInt(size), space).Float64()
	return start, share
}

func bar(start, share float64) string {
	from := min(int(start*barWidth), barWidth-1)
	n := max(1, int((start+share)*barWidth+0.5)-from)
	n = min(n, barWidth-from)
	return strings.Repeat(" ", from) + strings.Repeat("█", n) + strings.Repeat(" ", barWidth-from-n)
}
