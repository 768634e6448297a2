package cli

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

func keysCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Manage users, their access keys and what they may do",
		Long: `Manage who may call a server that runs with --auth=keys. The command speaks the
IAM API of the server, so the caller's own key must be allowed to: the root key
that a fresh data directory prints is.`,
	}
	c.register(cmd)
	cmd.ValidArgsFunction = nil
	cmd.AddCommand(keysList(c), keysCreate(c), keysDelete(c),
		keysStatus(c, "enable", "Active", "Let an access key sign again"),
		keysStatus(c, "disable", "Inactive", "Refuse an access key without deleting it"),
		keysPolicy(c))
	return cmd
}

const iamVersion = "2010-05-08"

// iamCall calls an action of the IAM API and reads its reply into out.
func iamCall(ctx context.Context, cl *client.Client, action string, parameters map[string]string, out any) error {
	form := url.Values{"Action": {action}, "Version": {iamVersion}}
	for name, value := range parameters {
		if value != "" {
			form.Set(name, value)
		}
	}
	reply, err := cl.Query(ctx, "iam", form)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := xml.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("read the reply to %s: %w", action, err)
	}
	return nil
}

type accessKey struct {
	UserName, AccessKeyId, Status, SecretAccessKey, CreateDate string
}

func listUsers(ctx context.Context, cl *client.Client) ([]string, error) {
	var names []string
	marker := ""
	for {
		var reply struct {
			Result struct {
				Users []struct {
					UserName string
				} `xml:"Users>member"`
				IsTruncated bool
				Marker      string
			} `xml:"ListUsersResult"`
		}
		if err := iamCall(ctx, cl, "ListUsers", map[string]string{"Marker": marker}, &reply); err != nil {
			return nil, err
		}
		for _, u := range reply.Result.Users {
			names = append(names, u.UserName)
		}
		if !reply.Result.IsTruncated || reply.Result.Marker == "" {
			return names, nil
		}
		marker = reply.Result.Marker
	}
}

func listKeys(ctx context.Context, cl *client.Client, user string) ([]accessKey, error) {
	var reply struct {
		Keys []accessKey `xml:"ListAccessKeysResult>AccessKeyMetadata>member"`
	}
	err := iamCall(ctx, cl, "ListAccessKeys", map[string]string{"UserName": user}, &reply)
	return reply.Keys, err
}

func keysList(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list [USER]...",
		Short: "List access keys by user",
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, users []string) error {
			if len(users) == 0 {
				var err error
				if users, err = listUsers(ctx, cl); err != nil {
					return err
				}
			}
			if len(users) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no users yet, only the root key: `millrace keys create USER` makes one")
				return nil
			}
			rows := [][]string{{"USER", "ACCESS KEY", "STATUS", "CREATED"}}
			for _, user := range users {
				keys, err := listKeys(ctx, cl, user)
				if err != nil {
					return err
				}
				if len(keys) == 0 {
					rows = append(rows, []string{user, "-", "", ""})
				}
				for _, k := range keys {
					rows = append(rows, []string{user, k.AccessKeyId, k.Status, k.CreateDate})
				}
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
}

// policyName is the inline policy that the command line manages.
const policyName = "millrace"

func keysCreate(c *connection) *cobra.Command {
	var policy string
	var actions, resources []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create USER",
		Short: "Make an access key for a user, and the user if there is none of the name",
		Long: `Make an access key. The secret is shown once and is not stored in a readable
form anywhere else the command knows of.

What the user may do is set with --policy, an IAM policy document, or with
--allow and --resource. Without either, a new user may do nothing yet.`,
		Example: `  millrace keys create producer --allow 'kinesis:Put*' --allow kinesis:ListShards
  millrace keys create admin --allow '*'
  millrace keys create reader --policy reader.json`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			document, err := policyDocument(policy, actions, resources)
			if err != nil {
				return err
			}
			err = iamCall(ctx, cl, "CreateUser", map[string]string{"UserName": args[0]}, nil)
			if err != nil && !client.IsCode(err, "EntityAlreadyExists") {
				return err
			}
			if document != "" {
				if err := iamCall(ctx, cl, "PutUserPolicy", map[string]string{"UserName": args[0], "PolicyName": policyName, "PolicyDocument": document}, nil); err != nil {
					return err
				}
			}
			var reply struct {
				Key accessKey `xml:"CreateAccessKeyResult>AccessKey"`
			}
			if err := iamCall(ctx, cl, "CreateAccessKey", map[string]string{"UserName": args[0]}, &reply); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"userName": args[0], "accessKeyId": reply.Key.AccessKeyId, "secretAccessKey": reply.Key.SecretAccessKey})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", reply.Key.AccessKeyId, reply.Key.SecretAccessKey)
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&policy, "policy", "", "file with an IAM policy document")
	f.StringArrayVar(&actions, "allow", nil, "action to allow, wildcards included; may be repeated")
	f.StringArrayVar(&resources, "resource", nil, "ARN that --allow is limited to (default all); may be repeated")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func policyDocument(file string, actions, resources []string) (string, error) {
	switch {
	case file != "" && len(actions) > 0:
		return "", errors.New("give --policy or --allow, not both")
	case file != "":
		text, err := os.ReadFile(file)
		return string(text), err
	case len(actions) == 0 && len(resources) > 0:
		return "", errors.New("--resource limits --allow, which is missing")
	case len(actions) == 0:
		return "", nil
	}
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	text, err := json.Marshal(map[string]any{
		"Version":   "2012-10-17",
		"Statement": []any{map[string]any{"Effect": "Allow", "Action": actions, "Resource": resources}},
	})
	return string(text), err
}

// ownerOf finds the user that a key belongs to.
func ownerOf(ctx context.Context, cl *client.Client, id string) (string, error) {
	users, err := listUsers(ctx, cl)
	if err != nil {
		return "", err
	}
	for _, user := range users {
		keys, err := listKeys(ctx, cl, user)
		if err != nil {
			return "", err
		}
		for _, k := range keys {
			if k.AccessKeyId == id {
				return user, nil
			}
		}
	}
	return "", fmt.Errorf("no user has the access key %s: `millrace keys list` shows all", id)
}

func keysDelete(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "delete ACCESS-KEY",
		Short: "Delete an access key for good",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			user, err := ownerOf(ctx, cl, args[0])
			if err != nil {
				return err
			}
			if err := iamCall(ctx, cl, "DeleteAccessKey", map[string]string{"UserName": user, "AccessKeyId": args[0]}, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "deleted %s of %s\n", args[0], user)
			return nil
		}),
	}
}

func keysStatus(c *connection, verb, status, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ACCESS-KEY",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			user, err := ownerOf(ctx, cl, args[0])
			if err != nil {
				return err
			}
			if err := iamCall(ctx, cl, "UpdateAccessKey", map[string]string{"UserName": user, "AccessKeyId": args[0], "Status": status}, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s of %s is %s\n", args[0], user, status)
			return nil
		}),
	}
}

func keysPolicy(c *connection) *cobra.Command {
	var file string
	var actions, resources []string
	cmd := &cobra.Command{
		Use:   "policy USER",
		Short: "Show what a user may do, or replace it",
		Example: `  millrace keys policy reader
  millrace keys policy reader --allow 'kinesis:Get*' --allow 'kinesis:List*' --allow 'kinesis:Describe*'`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			document, err := policyDocument(file, actions, resources)
			if err != nil {
				return err
			}
			if document != "" {
				if err := iamCall(ctx, cl, "PutUserPolicy", map[string]string{"UserName": args[0], "PolicyName": policyName, "PolicyDocument": document}, nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "replaced what %s may do\n", args[0])
				return nil
			}
			var names struct {
				Names []string `xml:"ListUserPoliciesResult>PolicyNames>member"`
			}
			if err := iamCall(ctx, cl, "ListUserPolicies", map[string]string{"UserName": args[0]}, &names); err != nil {
				return err
			}
			for _, name := range names.Names {
				var reply struct {
					Document string `xml:"GetUserPolicyResult>PolicyDocument"`
				}
				if err := iamCall(ctx, cl, "GetUserPolicy", map[string]string{"UserName": args[0], "PolicyName": name}, &reply); err != nil {
					return err
				}
				text, err := url.QueryUnescape(reply.Document)
				if err != nil {
					return fmt.Errorf("policy %s: %w", name, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "# %s\n%s\n", name, text)
			}
			if len(names.Names) == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s has no policy: `millrace keys policy %s --allow ACTION` gives one\n", args[0], args[0])
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "policy", "", "file with an IAM policy document that replaces the present one")
	f.StringArrayVar(&actions, "allow", nil, "action to allow; may be repeated")
	f.StringArrayVar(&resources, "resource", nil, "ARN that --allow is limited to; may be repeated")
	return cmd
}
