#include "bind/hyper.hpp"

#include <cmath>
#include <string>
#include <vector>

#include "bind/scalars.hpp"

namespace fastopt::bind {
namespace {

// ---- three tables: numbers with their ranges, flags, choices ----

struct Number {
  const char* name;
  double Hyper::* at;
  Interval interval;
};

constexpr double kInf = std::numeric_limits<double>::infinity();

constexpr Number kNumbers[] = {
    {"lr", &Hyper::lr, {0, kInf, false, true}},
    {"momentum", &Hyper::momentum, {0, 1}},
    {"dampening", &Hyper::dampening, {0, 1}},
    {"rho", &Hyper::rho, {0, 1}},
    {"beta1", &Hyper::beta1, {0, 1, false, true}},
    {"beta2", &Hyper::beta2, {0, 1, false, true}},
    {"eps", &Hyper::eps, {0, kInf, false, true}},
    {"eps_root", &Hyper::eps_root, {0, kInf, false, true}},
    {"lr_decay", &Hyper::lr_decay, {0, kInf, false, true}},
    {"l1", &Hyper::l1, {0, kInf, false, true}},
    {"l2", &Hyper::l2, {0, kInf, false, true}},
    {"weight_decay", &Hyper::weight_decay, {0, kInf, false, true}},
    {"grad_scale", &Hyper::grad_scale, {0, kInf, true, true}},
    {"clip_value", &Hyper::clip_value, {0, kInf}},
    {"clip_norm", &Hyper::clip_norm, {0, kInf}},
    {"clip_eps", &Hyper::clip_eps, {0, kInf, false, true}},
    {"max_norm", &Hyper::clip_norm, {0, kInf}},  // in clip_grad_norm and clip_grad_value
    {"value", &Hyper::clip_value, {0, kInf}},
};

struct Flag {
  const char* name;
  bool Hyper::* at;
};

constexpr Flag kFlags[] = {
    {"lr_in_velocity", &Hyper::lr_in_velocity},
    {"bias_correction", &Hyper::bias_correction},
    {"nesterov", &Hyper::nesterov},
    {"maximize", &Hyper::maximize},
};

struct Choice {
  const char* name;
  void (*set)(Hyper&, int);
  std::vector<std::string> names;  // in the order of the enum
  const char* expected = nullptr;  // for messages, where names are not all that is accepted
};

template <auto Member>
void set(Hyper& h, int value) {
  using Enum = std::remove_reference_t<decltype(h.*Member)>;
  h.*Member = static_cast<Enum>(value);
}

constexpr const char* kNorms = "1, 2, inf or 'max'";

const std::vector<Choice>& choices() {
  static const std::vector<Choice> all = {
      {"eps_mode", set<&Hyper::eps_mode>, {"outside", "inside", "hat"}},
      {"first_step", set<&Hyper::first_step>, {"grad", "zero"}},
      {"amsgrad_max", set<&Hyper::amsgrad_max>, {"raw", "corrected"}},
      {"l1_mode", set<&Hyper::l1_mode>, {"subgradient", "proximal"}},
      {"decay_order", set<&Hyper::decay_order>, {"before", "after"}},
      {"decay_scale", set<&Hyper::decay_scale>, {"lr", "none"}},
      {"clip_scope", set<&Hyper::clip_scope>, {"global", "tensor"}},
      {"clip_norm_type", set<&Hyper::clip_norm_type>, {"2", "1", "max"}, kNorms},
      {"on_nonfinite", set<&Hyper::on_nonfinite>, {"propagate", "skip", "raise"}},
      {"scope", set<&Hyper::clip_scope>, {"global", "tensor"}},  // in clip_grad_norm
      {"norm_type", set<&Hyper::clip_norm_type>, {"2", "1", "max"}, kNorms},
  };
  return all;
}

// Whether a rule accepts a choice: every rule accepts all of them, except for eps_mode.
bool knows(const RuleInfo& rule, const Choice& choice, int value) {
  if (choice.name != std::string("eps_mode") || !rule.eps_modes) return true;
  return int(rule.eps_modes[0]) == value || int(rule.eps_modes[1]) == value;
}

// ---- one value ----

void set_number(Hyper& h, const Number& n, py::handle value) {
  if (value.is_none() && n.interval.high == kInf && !n.interval.high_open) {  // None turns a limit off
    h.*n.at = kNoLimit;
    return;
  }
  h.*n.at = read_number(n.name, value, n.interval);
}

// Norms may also be given as numbers: 1, 2, float("inf").
std::string choice_text(py::handle value) {
  if (py::isinstance<py::str>(value)) return std::string(py::str(value));
  if (!PyBool_Check(value.ptr()) && PyNumber_Check(value.ptr())) {
    const double x = PyFloat_AsDouble(value.ptr());
    clear_error();
    return x == 1.0 ? "1" : x == 2.0 ? "2" : x == kInf ? "max" : "";
  }
  return "";
}

void set_choice(Hyper& h, const RuleInfo& rule, const Choice& c, py::handle value) {
  const std::string text = choice_text(value);
  std::string valid;
  for (int i = 0; i < int(c.names.size()); ++i) {
    if (!knows(rule, c, i)) continue;
    if (c.names[i] == text) return c.set(h, i);
    valid += (valid.empty() ? "'" : ", '") + c.names[i] + "'";
  }
  throw py::value_error(std::string(c.name) + " must be " +
                        (c.expected ? c.expected : "one of " + valid) + ", got " + repr_of(value));
}

bool listed(const char* const* names, const std::string& name) {
  for (; *names; ++names)
    if (name == *names) return true;
  return false;
}

constexpr const char* kRunHyper[] = {"l1",          "l2",          "weight_decay", "l1_mode",
                                     "decay_order", "decay_scale", "maximize",     "grad_scale",
                                     "clip_value",  nullptr};
constexpr const char* kListHyper[] = {"clip_norm",      "clip_eps",     "clip_scope",
                                      "clip_norm_type", "on_nonfinite", nullptr};

void set_one(Hyper& h, const RuleInfo& rule, const std::string& name, py::handle value) {
  const bool known = listed(rule.hyper, name) || listed(kRunHyper, name) || listed(kListHyper, name);
  if (!known) throw py::type_error(std::string(rule.name) + " has no hyper-parameter '" + name + "'");
  for (const Number& n : kNumbers)
    if (name == n.name) return set_number(h, n, value);
  for (const Flag& s : kFlags)
    if (name == s.name) return void(h.*s.at = read_bool(s.name, value));
  for (const Choice& c : choices())
    if (name == c.name) return set_choice(h, rule, c, value);
}

py::list list_of(const char* const* names, int most = std::numeric_limits<int>::max()) {
  py::list out;
  for (; *names && most > 0; ++names, --most) out.append(*names);
  return out;
}

}  // namespace

int rule_index(const std::string& name) {
  for (int i = 0; i < RuleList::size; ++i)
    if (name == InfoTable<RuleList>::rules[i].name) return i;
  throw py::value_error("there is no rule '" + name + "'");
}

Hyper read_hyper(const RuleInfo& rule, const Values& values) {
  Hyper h;
  for (const auto& [name, value] : values) set_one(h, rule, std::string(py::str(name)), value);
  return h;
}

void register_hyper(py::module_& m) {
  py::dict rules;
  for (const RuleInfo& rule : InfoTable<RuleList>::rules) {
    py::dict info;
    info["states"] = list_of(rule.states, rule.slots);
    info["hyper"] = list_of(rule.hyper);
    rules[rule.name] = info;
  }
  m.attr("RULES") = rules;
  m.attr("RUN_HYPER") = list_of(kRunHyper);
  m.attr("LIST_HYPER") = list_of(kListHyper);
  m.def(
      "check_hyper",
      [](const std::string& rule, const Values& values) {
        read_hyper(InfoTable<RuleList>::rules[rule_index(rule)], values);
      },
      py::arg("rule"), py::arg("values"),
      "Raise what a step of this rule with these hyper-parameters would raise, else return.");
}

}  // namespace fastopt::bind
