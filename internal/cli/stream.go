package cli

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

func streamCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Create, list, change and delete streams",
	}
	c.register(cmd)
	cmd.AddCommand(
		streamCreate(c), streamList(c), streamDescribe(c), streamDelete(c), streamSplit(c),
		streamMerge(c), streamScale(c), streamRetention(c), streamTag(c),
	)
	cmd.ValidArgsFunction = nil
	for _, sub := range cmd.Commands() {
		sub.ValidArgsFunction = c.completeStream
		if sub.Name() == "create" || sub.Name() == "list" {
			sub.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return cmd
}

// The bounds of a retention period, in hours.
const minRetention, maxRetention = 24, 8760

func printDescription(ctx context.Context, cl *client.Client, w io.Writer, name string) error {
	s, err := describe(ctx, cl, name)
	if err != nil {
		return err
	}
	return printJSON(w, s)
}

func streamCreate(c *connection) *cobra.Command {
	var shards, retention int32
	var onDemand bool
	var tags map[string]string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a stream and wait until it is ACTIVE",
		Example: `  millrace stream create orders --shards 4
  millrace stream create clicks --on-demand --retention 168 --tag team=web`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("retention") && (retention < minRetention || retention > maxRetention) {
				return fmt.Errorf("--retention is %d to %d hours", minRetention, maxRetention)
			}
			in := &kinesis.CreateStreamInput{StreamName: &args[0], Tags: tags}
			if onDemand {
				if cmd.Flags().Changed("shards") {
					return fmt.Errorf("--on-demand sets the number of shards itself: leave --shards out")
				}
				in.StreamModeDetails = &kinesis.StreamModeDetails{StreamMode: api.Ptr(kinesis.StreamModeOnDemand)}
			} else {
				in.ShardCount = &shards
				in.StreamModeDetails = &kinesis.StreamModeDetails{StreamMode: api.Ptr(kinesis.StreamModeProvisioned)}
			}
			if err := cl.Call(ctx, kinesis.OpCreateStream, in, nil); err != nil {
				return err
			}
			if err := waitActive(ctx, cl, args[0]); err != nil {
				return err
			}
			if retention != 0 {
				if err := setRetention(ctx, cl, args[0], retention); err != nil {
					return err
				}
			}
			if asJSON {
				return printDescription(ctx, cl, cmd.OutOrStdout(), args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "created %s\n", args[0])
			return nil
		}),
	}
	cmd.Flags().Int32VarP(&shards, "shards", "n", 1, "number of shards")
	cmd.Flags().BoolVar(&onDemand, "on-demand", false, "on-demand capacity mode")
	cmd.Flags().Int32Var(&retention, "retention", 0, "retention period in hours, 24 to 8760 (default 24)")
	cmd.Flags().StringToStringVar(&tags, "tag", nil, "tag as key=value; may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the stream's description as JSON")
	return cmd
}

func streamList(c *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List streams",
		Args:  cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			streams := []kinesis.StreamSummary{}
			in := &kinesis.ListStreamsInput{}
			for {
				out := &kinesis.ListStreamsOutput{}
				if err := cl.Call(ctx, kinesis.OpListStreams, in, out); err != nil {
					return err
				}
				streams = append(streams, out.StreamSummaries...)
				if !api.Val(out.HasMoreStreams) || len(out.StreamNames) == 0 {
					break
				}
				in.ExclusiveStartStreamName = api.Ptr(out.StreamNames[len(out.StreamNames)-1])
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), streams)
			}
			if len(streams) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no streams yet: `millrace stream create NAME` makes one")
				return nil
			}
			rows := [][]string{{"NAME", "STATUS", "MODE", "CREATED"}}
			for _, s := range streams {
				mode := ""
				if s.StreamModeDetails != nil {
					mode = string(api.Val(s.StreamModeDetails.StreamMode))
				}
				rows = append(rows, []string{api.Val(s.StreamName), string(api.Val(s.StreamStatus)), mode, api.Val(s.StreamCreationTimestamp).Local().Format("2006-01-02 15:04:05")})
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func streamDescribe(c *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Show a stream's settings, tags and consumers",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if asJSON {
				return printDescription(ctx, cl, cmd.OutOrStdout(), args[0])
			}
			s, err := describe(ctx, cl, args[0])
			if err != nil {
				return err
			}
			tags := &kinesis.ListTagsForStreamOutput{}
			if err := cl.Call(ctx, kinesis.OpListTagsForStream, &kinesis.ListTagsForStreamInput{StreamName: &args[0]}, tags); err != nil {
				return err
			}
			mode := ""
			if s.StreamModeDetails != nil {
				mode = string(api.Val(s.StreamModeDetails.StreamMode))
			}
			encryption := string(api.Val(s.EncryptionType))
			if s.KeyId != nil {
				encryption += " " + *s.KeyId
			}
			rows := [][]string{
				{"name", api.Val(s.StreamName)},
				{"arn", api.Val(s.StreamARN)},
				{"status", string(api.Val(s.StreamStatus))},
				{"mode", mode},
				{"open shards", strconv.Itoa(int(api.Val(s.OpenShardCount)))},
				{"retention", fmt.Sprintf("%d h", api.Val(s.RetentionPeriodHours))},
				{"largest record", fmt.Sprintf("%d KiB", api.Val(s.MaxRecordSizeInKiB))},
				{"encryption", encryption},
				{"consumers", strconv.Itoa(int(api.Val(s.ConsumerCount)))},
				{"created", api.Val(s.StreamCreationTimestamp).Local().Format("2006-01-02 15:04:05")},
			}
			for _, tag := range tags.Tags {
				rows = append(rows, []string{"tag", api.Val(tag.Key) + "=" + api.Val(tag.Value)})
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func streamDelete(c *connection) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete streams with all their records, and wait until they are gone",
		Args:  cobra.MinimumNArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			for _, name := range args {
				in := &kinesis.DeleteStreamInput{StreamName: &name, EnforceConsumerDeletion: &force}
				if err := cl.Call(ctx, kinesis.OpDeleteStream, in, nil); err != nil {
					return hint(err, name)
				}
				if err := waitGone(ctx, cl, name); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", name)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete registered consumers too")
	return cmd
}

func streamSplit(c *connection) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "split NAME SHARD",
		Short: "Split a shard in two, in the middle unless --at names a hash key",
		Args:  cobra.ExactArgs(2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if at == "" {
				shards, err := listShards(ctx, cl, args[0])
				if err != nil {
					return err
				}
				i := slices.IndexFunc(shards, func(s kinesis.Shard) bool { return sameShard(*s.ShardId, args[1]) })
				if i < 0 {
					return fmt.Errorf("stream %s has no shard %s: `millrace shards %s` shows them", args[0], args[1], args[0])
				}
				middle := new(big.Int).Add(hashKey(*shards[i].HashKeyRange.StartingHashKey), hashKey(*shards[i].HashKeyRange.EndingHashKey))
				middle.Add(middle, big.NewInt(1))
				at = middle.Rsh(middle, 1).String()
			}
			in := &kinesis.SplitShardInput{StreamName: &args[0], ShardToSplit: &args[1], NewStartingHashKey: &at}
			return reshard(ctx, cl, cmd, args[0], kinesis.OpSplitShard, in)
		}),
	}
	cmd.Flags().StringVar(&at, "at", "", "hash key at which the upper child starts")
	return cmd
}

func streamMerge(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "merge NAME SHARD ADJACENT",
		Short: "Merge two adjacent shards",
		Args:  cobra.ExactArgs(3),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			in := &kinesis.MergeShardsInput{StreamName: &args[0], ShardToMerge: &args[1], AdjacentShardToMerge: &args[2]}
			return reshard(ctx, cl, cmd, args[0], kinesis.OpMergeShards, in)
		}),
	}
}

func streamScale(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "scale NAME COUNT",
		Short: "Change the number of open shards, in steps of at most double or half",
		Args:  cobra.ExactArgs(2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			count, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a number of shards", args[1])
			}
			in := &kinesis.UpdateShardCountInput{StreamName: &args[0], TargetShardCount: api.Ptr(int32(count)), ScalingType: api.Ptr(kinesis.ScalingTypeUniformScaling)}
			return reshard(ctx, cl, cmd, args[0], kinesis.OpUpdateShardCount, in)
		}),
	}
}

func reshard(ctx context.Context, cl *client.Client, cmd *cobra.Command, name string, op *api.Operation, in api.Shape) error {
	if err := cl.Call(ctx, op, in, nil); err != nil {
		return hint(err, name)
	}
	if err := waitActive(ctx, cl, name); err != nil {
		return err
	}
	s, err := describe(ctx, cl, name)
	if err != nil {
		return err
	}
	noun := "shards"
	if api.Val(s.OpenShardCount) == 1 {
		noun = "shard"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s has %d open %s\n", name, api.Val(s.OpenShardCount), noun)
	return nil
}

func streamRetention(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "retention NAME HOURS",
		Short: "Set how long records stay readable, 24 to 8760 hours",
		Args:  cobra.ExactArgs(2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			hours, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a number of hours", args[1])
			}
			if err := setRetention(ctx, cl, args[0], int32(hours)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s keeps records for %d hours\n", args[0], hours)
			return nil
		}),
	}
}

func setRetention(ctx context.Context, cl *client.Client, name string, hours int32) error {
	s, err := describe(ctx, cl, name)
	if err != nil {
		return err
	}
	if hours >= api.Val(s.RetentionPeriodHours) {
		err = cl.Call(ctx, kinesis.OpIncreaseStreamRetentionPeriod, &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: &name, RetentionPeriodHours: &hours}, nil)
	} else {
		err = cl.Call(ctx, kinesis.OpDecreaseStreamRetentionPeriod, &kinesis.DecreaseStreamRetentionPeriodInput{StreamName: &name, RetentionPeriodHours: &hours}, nil)
	}
	if err != nil {
		return err
	}
	return waitActive(ctx, cl, name)
}

func streamTag(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "tag NAME [KEY=VALUE | KEY-]...",
		Short:   "Show tags, set them with KEY=VALUE, remove them with KEY-",
		Example: "  millrace stream tag orders team=web owner-",
		Args:    cobra.MinimumNArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			name := args[0]
			set := map[string]string{}
			var remove []string
			for _, arg := range args[1:] {
				key, value, ok := strings.Cut(arg, "=")
				switch {
				case ok:
					set[key] = value
				case strings.HasSuffix(arg, "-") && len(arg) > 1:
					remove = append(remove, strings.TrimSuffix(arg, "-"))
				default:
					return fmt.Errorf("%q is neither KEY=VALUE nor KEY-", arg)
				}
			}
			if len(set) > 0 {
				if err := cl.Call(ctx, kinesis.OpAddTagsToStream, &kinesis.AddTagsToStreamInput{StreamName: &name, Tags: set}, nil); err != nil {
					return hint(err, name)
				}
			}
			if len(remove) > 0 {
				if err := cl.Call(ctx, kinesis.OpRemoveTagsFromStream, &kinesis.RemoveTagsFromStreamInput{StreamName: &name, TagKeys: remove}, nil); err != nil {
					return hint(err, name)
				}
			}
			in := &kinesis.ListTagsForStreamInput{StreamName: &name}
			for {
				out := &kinesis.ListTagsForStreamOutput{}
				if err := cl.Call(ctx, kinesis.OpListTagsForStream, in, out); err != nil {
					return hint(err, name)
				}
				for _, tag := range out.Tags {
					fmt.Fprintf(cmd.OutOrStdout(), "%s=%s\n", api.Val(tag.Key), api.Val(tag.Value))
				}
				if !api.Val(out.HasMoreTags) || len(out.Tags) == 0 {
					return nil
				}
				in.ExclusiveStartTagKey = out.Tags[len(out.Tags)-1].Key
			}
		}),
	}
}

// sameShard compares a full shard id with what a person typed: the id, or its
// number.
func sameShard(id, typed string) bool {
	if id == typed {
		return true
	}
	typed = typed[strings.LastIndexByte(typed, '-')+1:]
	a, err := strconv.ParseUint(strings.TrimPrefix(id, "shardId-"), 10, 32)
	if err != nil {
		return false
	}
	b, err := strconv.ParseUint(typed, 10, 32)
	return err == nil && a == b
}

// hashKey reads a decimal hash key that the server sent.
func hashKey(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return new(big.Int)
	}
	return n
}
