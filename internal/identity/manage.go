package identity

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/iam"
)

// The part of IAM that is served: users, their keys and inline policies, roles.
var iamOperations = map[string]operation{
	"CreateUser":       {serve: (*Handler).createUser},
	"GetUser":          {serve: (*Handler).getUser},
	"ListUsers":        {serve: (*Handler).listUsers},
	"DeleteUser":       {serve: (*Handler).deleteUser, empty: true},
	"PutUserPolicy":    {serve: (*Handler).putUserPolicy, empty: true},
	"GetUserPolicy":    {serve: (*Handler).getUserPolicy},
	"ListUserPolicies": {serve: (*Handler).listUserPolicies},
	"DeleteUserPolicy": {serve: (*Handler).deleteUserPolicy, empty: true},
	"CreateAccessKey":  {serve: (*Handler).createAccessKey},
	"ListAccessKeys":   {serve: (*Handler).listAccessKeys},
	"UpdateAccessKey":  {serve: (*Handler).updateAccessKey, empty: true},
	"DeleteAccessKey":  {serve: (*Handler).deleteAccessKey, empty: true},
	"CreateRole":       {serve: (*Handler).createRole},
	"GetRole":          {serve: (*Handler).getRole},
	"ListRoles":        {serve: (*Handler).listRoles},
	"DeleteRole":       {serve: (*Handler).deleteRole, empty: true},
	"PutRolePolicy":    {serve: (*Handler).putRolePolicy, empty: true},
	"GetRolePolicy":    {serve: (*Handler).getRolePolicy},
	"ListRolePolicies": {serve: (*Handler).listRolePolicies},
	"DeleteRolePolicy": {serve: (*Handler).deleteRolePolicy, empty: true},
}

func noSuch(kind, name string) error {
	return &fault{"NoSuchEntity", "The " + kind + " with name " + clip(name) + " cannot be found.", http.StatusNotFound}
}

// manage authorises an IAM call on a user or role.
func (h *Handler) manage(c *call, kind, name string) error {
	if h.open() {
		return nil
	}
	resource := "*"
	if kind != "" {
		resource = "arn:aws:iam::" + c.who.Principal.AccountID + ":" + kind + "/" + name
	}
	d := iam.Evaluate(iam.Request{
		Principal: c.who.Principal, Action: "iam:" + c.form.Get("Action"), Resource: resource,
		Context: c.context(), Session: c.who.Session,
	}, c.who.Policies, nil)
	if !d.Allowed {
		return denied(d.Reason)
	}
	return nil
}

func translate(err error, kind, name string) error {
	switch {
	case errors.Is(err, iam.ErrExists):
		return &fault{"EntityAlreadyExists", kind + " with name " + clip(name) + " already exists.", http.StatusConflict}
	case errors.Is(err, iam.ErrNotFound):
		return noSuch(strings.ToLower(kind), name)
	}
	return err
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func members(name string, list []element) element { return element{name: name, children: list} }

func userElements(u *iam.User) []element {
	return []element{text("Path", "/"), text("UserName", u.Name), text("UserId", u.ID), text("Arn", u.ARN()), text("CreateDate", stamp(u.Created))}
}

func roleElements(r *iam.Role) []element {
	longest := r.MaxSession
	if longest == 0 {
		longest = 3600
	}
	return []element{text("Path", "/"), text("RoleName", r.Name), text("RoleId", r.ID), text("Arn", r.ARN()), text("CreateDate", stamp(r.Created)),
		text("AssumeRolePolicyDocument", url.QueryEscape(r.Trust)), text("MaxSessionDuration", strconv.Itoa(longest))}
}

// user finds the user that the call names and authorises the call.
func (h *Handler) user(c *call) (*iam.User, error) {
	name := c.form.Get("UserName")
	p := c.who.Principal
	if name == "" && p.Type == "User" {
		name = p.ARN[strings.LastIndexByte(p.ARN, '/')+1:]
	}
	if name == "" {
		return nil, c.word("UserName", 1, 64)
	}
	if err := h.manage(c, "user", name); err != nil {
		return nil, err
	}
	u, ok := h.o.Directory.User(p.AccountID, name)
	if !ok {
		return nil, noSuch("user", name)
	}
	return u, nil
}

func (h *Handler) createUser(c *call) ([]element, error) {
	if err := c.word("UserName", 1, 64); err != nil {
		return nil, err
	}
	name := c.form.Get("UserName")
	if err := h.manage(c, "user", name); err != nil {
		return nil, err
	}
	u := &iam.User{Account: c.who.Principal.AccountID, Name: name}
	if err := h.o.Directory.PutUser(c.ctx, u, false); err != nil {
		return nil, translate(err, "User", name)
	}
	return []element{group("User", userElements(u)...)}, nil
}

func (h *Handler) getUser(c *call) ([]element, error) {
	if c.form.Get("UserName") == "" && c.who.Principal.Type == "Account" {
		p := c.who.Principal
		return []element{group("User", text("Path", "/"), text("UserId", p.UserID), text("Arn", p.ARN), text("CreateDate", stamp(time.Unix(0, 0))))}, nil
	}
	u, err := h.user(c)
	if err != nil {
		return nil, err
	}
	return []element{group("User", userElements(u)...)}, nil
}

func (h *Handler) listUsers(c *call) ([]element, error) {
	if err := h.manage(c, "", ""); err != nil {
		return nil, err
	}
	var list []element
	for _, u := range h.o.Directory.Users(c.who.Principal.AccountID) {
		list = append(list, group("member", userElements(u)...))
	}
	return []element{members("Users", list), text("IsTruncated", "false")}, nil
}

func (h *Handler) deleteUser(c *call) ([]element, error) {
	u, err := h.user(c)
	if err != nil {
		return nil, err
	}
	if len(u.Policies) > 0 || len(h.o.Directory.AccessKeys(u.Account, u.Name)) > 0 {
		return nil, &fault{"DeleteConflict", "Cannot delete entity, must delete access keys and policies first.", http.StatusConflict}
	}
	return nil, translate(h.o.Directory.DeleteUser(c.ctx, u.Account, u.Name), "User", u.Name)
}

// withPolicy returns a copy of an entity's policies with one set, or removed
// if there is no document.
func (c *call) withPolicy(policies map[string]string, set bool) (map[string]string, error) {
	if err := c.word("PolicyName", 1, 128); err != nil {
		return nil, err
	}
	name := c.form.Get("PolicyName")
	changed := maps.Clone(policies)
	if changed == nil {
		changed = make(map[string]string)
	}
	if !set {
		if _, ok := changed[name]; !ok {
			return nil, noSuch("policy", name)
		}
		delete(changed, name)
		return changed, nil
	}
	document := c.form.Get("PolicyDocument")
	if _, err := iam.ParsePolicy(document, iam.IdentityPolicy); err != nil {
		return nil, err
	}
	changed[name] = document
	return changed, nil
}

func (c *call) policyElements(kind, owner string, policies map[string]string) ([]element, error) {
	name := c.form.Get("PolicyName")
	document, ok := policies[name]
	if !ok {
		return nil, noSuch("policy", name)
	}
	return []element{text(kind+"Name", owner), text("PolicyName", name), text("PolicyDocument", url.QueryEscape(document))}, nil
}

func policyNames(policies map[string]string) []element {
	var list []element
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		list = append(list, text("member", name))
	}
	return []element{members("PolicyNames", list), text("IsTruncated", "false")}
}

func (h *Handler) changeUserPolicy(c *call, set bool) ([]element, error) {
	u, err := h.user(c)
	if err != nil {
		return nil, err
	}
	policies, err := c.withPolicy(u.Policies, set)
	if err != nil {
		return nil, err
	}
	return nil, translate(h.o.Directory.PutUser(c.ctx, &iam.User{Account: u.Account, Name: u.Name, Policies: policies}, true), "User", u.Name)
}

func (h *Handler) putUserPolicy(c *call) ([]element, error)    { return h.changeUserPolicy(c, true) }
func (h *Handler) deleteUserPolicy(c *call) ([]element, error) { return h.changeUserPolicy(c, false) }

func (h *Handler) getUserPolicy(c *call) ([]element, error) {
	u, err := h.user(c)
	if err != nil {
		return nil, err
	}
	return c.policyElements("User", u.Name, u.Policies)
}

func (h *Handler) listUserPolicies(c *call) ([]element, error) {
	u, err := h.user(c)
	if err != nil {
		return nil, err
	}
	return policyNames(u.Policies), nil
}

// keyOwner is whose keys a call is about: a user's, or the root's if the root
// names nobody.
func (h *Handler) keyOwner(c *call) (string, error) {
	if c.form.Get("UserName") == "" && c.who.Principal.Type == "Account" {
		return "", nil
	}
	u, err := h.user(c)
	if err != nil {
		return "", err
	}
	return u.Name, nil
}

func status(active bool) string {
	if active {
		return "Active"
	}
	return "Inactive"
}

func (h *Handler) createAccessKey(c *call) ([]element, error) {
	owner, err := h.keyOwner(c)
	if err != nil {
		return nil, err
	}
	k, err := h.o.Directory.CreateAccessKey(c.ctx, c.who.Principal.AccountID, owner)
	if err != nil {
		return nil, translate(err, "User", owner)
	}
	return []element{group("AccessKey", text("UserName", owner), text("AccessKeyId", k.ID), text("Status", status(k.Active)),
		text("SecretAccessKey", k.Secret), text("CreateDate", stamp(k.Created)))}, nil
}

func (h *Handler) listAccessKeys(c *call) ([]element, error) {
	owner, err := h.keyOwner(c)
	if err != nil {
		return nil, err
	}
	var list []element
	for _, k := range h.o.Directory.AccessKeys(c.who.Principal.AccountID, owner) {
		list = append(list, group("member", text("UserName", owner), text("AccessKeyId", k.ID), text("Status", status(k.Active)), text("CreateDate", stamp(k.Created))))
	}
	return []element{members("AccessKeyMetadata", list), text("IsTruncated", "false")}, nil
}

// ownKey checks that the key which a call names belongs to whom it names.
func (h *Handler) ownKey(c *call) (string, error) {
	owner, err := h.keyOwner(c)
	if err != nil {
		return "", err
	}
	id := c.form.Get("AccessKeyId")
	for _, k := range h.o.Directory.AccessKeys(c.who.Principal.AccountID, owner) {
		if k.ID == id {
			return id, nil
		}
	}
	return "", &fault{"NoSuchEntity", "The Access Key with id " + clip(id) + " cannot be found.", http.StatusNotFound}
}

func (h *Handler) updateAccessKey(c *call) ([]element, error) {
	id, err := h.ownKey(c)
	if err != nil {
		return nil, err
	}
	active := c.form.Get("Status")
	if active != "Active" && active != "Inactive" {
		return nil, badRequest("ValidationError", "1 validation error detected: Value '%s' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]", clip(active))
	}
	return nil, translate(h.o.Directory.SetAccessKeyActive(c.ctx, id, active == "Active"), "Access Key", id)
}

func (h *Handler) deleteAccessKey(c *call) ([]element, error) {
	id, err := h.ownKey(c)
	if err != nil {
		return nil, err
	}
	return nil, translate(h.o.Directory.DeleteAccessKey(c.ctx, id), "Access Key", id)
}

func (h *Handler) role(c *call) (*iam.Role, error) {
	if err := c.word("RoleName", 1, 64); err != nil {
		return nil, err
	}
	name := c.form.Get("RoleName")
	if err := h.manage(c, "role", name); err != nil {
		return nil, err
	}
	r, ok := h.o.Directory.Role("arn:aws:iam::" + c.who.Principal.AccountID + ":role/" + name)
	if !ok {
		return nil, noSuch("role", name)
	}
	return r, nil
}

func (h *Handler) createRole(c *call) ([]element, error) {
	if err := c.word("RoleName", 1, 64); err != nil {
		return nil, err
	}
	name := c.form.Get("RoleName")
	if err := h.manage(c, "role", name); err != nil {
		return nil, err
	}
	r := &iam.Role{Account: c.who.Principal.AccountID, Name: name, Trust: c.form.Get("AssumeRolePolicyDocument")}
	if raw := c.form.Get("MaxSessionDuration"); raw != "" {
		n, err := strconv.Atoi(raw)
		if err != nil || n < 3600 || n > 43200 {
			return nil, badRequest("ValidationError", "MaxSessionDuration must be between 3600 and 43200, not '%s'", clip(raw))
		}
		r.MaxSession = n
	}
	if err := h.o.Directory.PutRole(c.ctx, r, false); err != nil {
		return nil, translate(err, "Role", name)
	}
	return []element{group("Role", roleElements(r)...)}, nil
}

func (h *Handler) getRole(c *call) ([]element, error) {
	r, err := h.role(c)
	if err != nil {
		return nil, err
	}
	return []element{group("Role", roleElements(r)...)}, nil
}

func (h *Handler) listRoles(c *call) ([]element, error) {
	if err := h.manage(c, "", ""); err != nil {
		return nil, err
	}
	var list []element
	for _, r := range h.o.Directory.Roles(c.who.Principal.AccountID) {
		list = append(list, group("member", roleElements(r)...))
	}
	return []element{members("Roles", list), text("IsTruncated", "false")}, nil
}

func (h *Handler) deleteRole(c *call) ([]element, error) {
	r, err := h.role(c)
	if err != nil {
		return nil, err
	}
	if len(r.Policies) > 0 {
		return nil, &fault{"DeleteConflict", "Cannot delete entity, must delete policies first.", http.StatusConflict}
	}
	return nil, translate(h.o.Directory.DeleteRole(c.ctx, r.Account, r.Name), "Role", r.Name)
}

func (h *Handler) changeRolePolicy(c *call, set bool) ([]element, error) {
	r, err := h.role(c)
	if err != nil {
		return nil, err
	}
	policies, err := c.withPolicy(r.Policies, set)
	if err != nil {
		return nil, err
	}
	changed := &iam.Role{Account: r.Account, Name: r.Name, Trust: r.Trust, MaxSession: r.MaxSession, Policies: policies}
	return nil, translate(h.o.Directory.PutRole(c.ctx, changed, true), "Role", r.Name)
}

func (h *Handler) putRolePolicy(c *call) ([]element, error)    { return h.changeRolePolicy(c, true) }
func (h *Handler) deleteRolePolicy(c *call) ([]element, error) { return h.changeRolePolicy(c, false) }

func (h *Handler) getRolePolicy(c *call) ([]element, error) {
	r, err := h.role(c)
	if err != nil {
		return nil, err
	}
	return c.policyElements("Role", r.Name, r.Policies)
}

func (h *Handler) listRolePolicies(c *call) ([]element, error) {
	r, err := h.role(c)
	if err != nil {
		return nil, err
	}
	return policyNames(r.Policies), nil
}
