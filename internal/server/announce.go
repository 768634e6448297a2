package server

import (
	"fmt"
	"strings"
)

// served are the services of the API port as SDKs name them in the variables
// AWS_ENDPOINT_URL_….
const served = "KINESIS, FIREHOSE, KINESIS_ANALYTICS, KINESIS_ANALYTICS_V2, LAMBDA, S3, GLUE, CLOUDWATCH_LOGS, STS and IAM"

// announce prints what a person needs to begin, and logs that the server is
// ready.
func (s *Server) announce() {
	address := s.config.PublicName
	if address == "" {
		address = reachable(s.Address())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "millrace %s\n\n  endpoint  http://%s", s.options.Version, address)
	if s.config.TLS {
		fmt.Fprintf(&b, "  https://%s", address)
	}
	b.WriteByte('\n')
	for _, l := range s.listeners[1:] {
		fmt.Fprintf(&b, "            %s\n", l.Addr())
	}
	if a := s.AdminAddress(); a != "" {
		fmt.Fprintf(&b, "  admin     http://%s\n", a)
	}
	if s.config.Ephemeral {
		b.WriteString("  data      in memory, forgotten at the end\n")
	} else {
		fmt.Fprintf(&b, "  data      %s\n", s.config.DataPath())
	}
	fmt.Fprintf(&b, "\nexport AWS_ENDPOINT_URL=http://%s\nexport AWS_REGION=%s AWS_DEFAULT_REGION=%s\n", address, s.config.Region, s.config.Region)
	switch {
	case s.config.Auth == "open":
		b.WriteString("export AWS_ACCESS_KEY_ID=local\nexport AWS_SECRET_ACCESS_KEY=local\n")
	case s.rootKey != nil:
		fmt.Fprintf(&b, "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", s.rootKey.ID, s.rootKey.Secret)
		b.WriteString("\nThis is the root key. It is shown this once; keep the secret.\n")
	default:
		b.WriteString("# and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: the root key, or one that `millrace keys create` made\n")
	}
	fmt.Fprintf(&b, "\nSDKs then send everything here. Beside services elsewhere, set AWS_ENDPOINT_URL_… instead, for\n%s.\n", served)
	b.WriteByte('\n')
	fmt.Fprint(s.options.Stdout, b.String())
	s.logger.Info("ready", "listen", s.Address(), "admin", s.AdminAddress(), "auth", s.config.Auth, "limits", s.config.Limits)
}
