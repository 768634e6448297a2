// Package outbound decides where the server may connect to on behalf of others,
// and makes the HTTP clients that obey.
//
// The one idea: an address is judged at the moment of the connect call, after
// the name was resolved, for every address that is tried. A check of the URL
// alone loses to names that resolve differently the second time; a check here
// cannot be passed by anything, because nothing else connects. Redirects are
// answers like any other and are never followed.
//
// Who asks matters: what users of the API set (endpoints of delivery streams,
// broker lists, functions' URLs) goes through a Policy; what the operator wrote
// in files of his own may name its own hosts in Policy.Allow.
//
// Start reading at Policy, then Client. Explain turns what net/http reports into
// the few kinds of failure that destinations have codes for.
package outbound

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Policy says which addresses may be connected to. Its zero value reaches public
// addresses only.
type Policy struct {
	// AllowPrivate reaches loopback and private networks too: the default of a
	// server that serves one house.
	AllowPrivate bool
	// ListOnly reaches nothing but what Allow names.
	ListOnly bool
	// Allow names what is reached in any case. A rule with an address or prefix is
	// the only way to a link-local or metadata address.
	Allow []Rule
}

// Rule is one entry of the list of allowed targets: a prefix, or a host name,
// each with or without a port.
type Rule struct {
	Prefix netip.Prefix // invalid if Host is set
	Host   string       // lower case; "*.example.com" covers every name below example.com
	Port   uint16       // 0 is any
}

// Modes of ParsePolicy.
const (
	Open   = "open"   // everything but link-local and metadata addresses
	Public = "public" // public addresses, and what is listed
	List   = "list"   // what is listed
)

// ParsePolicy makes a policy of the two settings: a mode, and the allowed
// targets: "10.1.0.0/16", "192.0.2.7:8088", "[fd00::7]:443", "hec.example.com",
// "*.example.com:443".
func ParsePolicy(mode string, allow []string) (Policy, error) {
	var p Policy
	switch mode {
	case Open:
		p.AllowPrivate = true
	case Public:
	case List:
		p.ListOnly = true
	default:
		return p, fmt.Errorf("%q is not open, public or list", mode)
	}
	for _, text := range allow {
		r, err := ParseRule(text)
		if err != nil {
			return p, err
		}
		p.Allow = append(p.Allow, r)
	}
	return p, nil
}

// ParseRule reads one allowed target.
func ParseRule(text string) (Rule, error) {
	bad := func() (Rule, error) {
		return Rule{}, fmt.Errorf("%q is not an allowed target; write an address, a prefix or a host name, with or without :port, such as 10.0.0.0/8 or hec.example.com:8088", text)
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return Rule{Prefix: prefix.Masked()}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return Rule{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	host, port := text, uint16(0)
	if h, p, err := net.SplitHostPort(text); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return bad()
		}
		host, port = h, uint16(n)
	}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		return Rule{Prefix: prefix.Masked(), Port: port}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		return Rule{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Port: port}, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	labels := strings.Split(strings.TrimPrefix(host, "*."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return bad()
		}
	}
	// What ends in a number is an address that was mistyped, not a name.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return bad()
	}
	return Rule{Host: host, Port: port}, nil
}

// String renders the rule as ParseRule reads it.
func (r Rule) String() string {
	host := r.Host
	if r.Prefix.IsValid() {
		host = r.Prefix.String()
	}
	if r.Port == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
}

func (r Rule) covers(host string, addr netip.Addr, port uint16) (byAddress, byName bool) {
	if r.Port != 0 && r.Port != port {
		return false, false
	}
	if r.Prefix.IsValid() {
		return r.Prefix.Contains(addr), false
	}
	if below, ok := strings.CutPrefix(r.Host, "*"); ok {
		return false, len(host) > len(below) && strings.HasSuffix(host, below)
	}
	return false, host != "" && r.Host == host
}

// class is what kind of address one is.
type class int

const (
	public class = iota
	private
	metadata // link-local, or where a cloud keeps credentials of its machines
	never    // no unicast target at all
)

func (c class) String() string {
	return [...]string{"a public address", "a private address", "a link-local or metadata address", "not an address of a host"}[c]
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

var (
	// Credentials of the machine are handed out on these to whoever can make it
	// ask: AWS, Google, Azure and most others on 169.254.169.254, AWS also on
	// fd00:ec2::/32, Google on fd20:ce::254, Azure's agent on 168.63.129.16,
	// Alibaba on 100.100.100.200, Oracle on 192.0.0.192.
	metadataPrefixes = prefixes("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128",
		"168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32")
	privatePrefixes = prefixes("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
		"0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "::1/128", "::/128", "fc00::/7", "fec0::/10")
	neverPrefixes = prefixes("224.0.0.0/4", "240.0.0.0/4", "ff00::/8")
	// An IPv4 address travels inside these; the position of its first byte follows.
	embedding = []struct {
		prefix netip.Prefix
		at     int
	}{
		{netip.MustParsePrefix("64:ff9b::/96"), 12},
		{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
		{netip.MustParsePrefix("2002::/16"), 2},
		{netip.MustParsePrefix("::/96"), 12},
	}
)

func classify(addr netip.Addr) class {
	addr = addr.Unmap().WithZone("")
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	switch {
	case !addr.IsValid() || in(neverPrefixes):
		return never
	case in(metadataPrefixes):
		return metadata
	case in(privatePrefixes):
		return private
	}
	for _, e := range embedding {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return classify(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return public
}

// RefusedError says that the policy does not let the server connect.
type RefusedError struct {
	Target string // as asked for, host:port
	Addr   netip.Addr
	Why    string
}

func (e *RefusedError) Error() string {
	if e.Addr.IsValid() && !strings.Contains(e.Target, e.Addr.String()) {
		return fmt.Sprintf("connecting to %s (%s) is not allowed: %s", e.Target, e.Addr, e.Why)
	}
	return fmt.Sprintf("connecting to %s is not allowed: %s", e.Target, e.Why)
}

// Check judges one resolved address that was reached through a name (empty if
// it was written as an address). Its error is a *RefusedError.
func (p Policy) Check(host string, addr netip.AddrPort) error {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip := addr.Addr().Unmap()
	c := classify(ip)
	named := false
	for _, r := range p.Allow {
		byAddress, byName := r.covers(host, ip.WithZone(""), addr.Port())
		if byAddress && c != never {
			return nil
		}
		named = named || byName
	}
	target := net.JoinHostPort(host, strconv.Itoa(int(addr.Port())))
	if host == "" {
		target = addr.String()
	}
	refuse := func(why string) error { return &RefusedError{Target: target, Addr: ip, Why: why} }
	switch {
	case c == never, c == metadata:
		// A name in the list does not vouch for where its owner lets it point.
		return refuse("it is " + c.String())
	case named:
		return nil
	case p.ListOnly:
		return refuse("it is not among the allowed targets")
	case c == private && !p.AllowPrivate:
		return refuse("it is " + c.String())
	}
	return nil
}

// DialContext connects as net.Dialer does, within the policy.
func (p Policy) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return p.dial(ctx, network, address, 10*time.Second)
}

func (p Policy) dial(ctx context.Context, network, address string, timeout time.Duration) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &RefusedError{Target: address, Why: "only TCP is"}
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		host = ""
	}
	d := net.Dialer{
		Timeout:   timeout,
		KeepAlive: 30 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return &RefusedError{Target: address, Why: "it is not an address"}
			}
			return p.Check(host, to)
		},
	}
	return d.DialContext(ctx, network, address)
}
