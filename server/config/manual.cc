#include "server/config/manual.h"

#include <CLI/CLI.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

// A text as troff prints it: no line of it is a request, and hyphens can be copied.
std::string troff(absl::string_view text) {
  const std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  std::string lines;
  for (const absl::string_view line : absl::StrSplit(escaped, '\n')) {
    const bool is_request = absl::StartsWith(line, ".") || absl::StartsWith(line, "'");
    absl::StrAppend(&lines, lines.empty() ? "" : "\n", is_request ? "\\&" : "", line);
  }
  return lines;
}

std::vector<const CLI::Option*> visible_options(const CLI::App& app, const std::string& group) {
  return app.get_options([&group](const CLI::Option* option) {
    return option->get_group() == group && !option->get_group().empty();
  });
}

// What stands behind the flag: " FOLDER", or nothing.
std::string value_text(const CLI::Option& option) {
  return CLI::Formatter().make_option_opts(&option);
}

// "-h,--help" as "-h, --help".
std::string names_text(const CLI::Option& option) {
  return absl::StrReplaceAll(option.get_name(false, true), {{",", ", "}});
}

// "auto | cpu | cuda" as those, with what is said of each left out.
std::vector<std::string> choices(absl::string_view help) {
  std::vector<std::string> words;
  if (!absl::StrContains(help, " | ")) return words;
  for (const absl::string_view piece : absl::StrSplit(help, " | ")) {
    words.emplace_back(piece.substr(0, piece.find(' ')));
  }
  return words;
}

// The shell words that print what may stand behind a flag; empty where nobody can say.
std::string completion_of(const CLI::Option& option) {
  const std::string value = value_text(option);
  if (value == " FILE") return "compgen -f -- \"$word\"";
  if (value == " FOLDER") return "compgen -d -- \"$word\"";
  const std::vector<std::string> words = choices(option.get_description());
  if (words.empty()) return "";
  return absl::StrCat("compgen -W '", absl::StrJoin(words, " "), "' -- \"$word\"");
}

}  // namespace

std::string man_page(const CLI::App& app) {
  std::string page =
      absl::StrCat(".TH PBSERVE 1 \"\" \"pbserve ", troff(std::string(kVersion)),
                   "\" \"User Commands\"\n.SH NAME\npbserve \\- a long\\-context LLM "
                   "inference server\n.SH SYNOPSIS\n.B pbserve\n[\\fIoption\\fR ...]\n"
                   ".SH DESCRIPTION\nServes a Hugging Face model over HTTP, as "
                   "OpenAI's API has it, and over gRPC. Defaults stand in [].\n"
                   ".SH OPTIONS\n");
  for (const std::string& group : app.get_groups()) {
    const auto options = visible_options(app, group);
    if (!options.empty()) absl::StrAppend(&page, ".SS ", troff(group), "\n");
    for (const CLI::Option* option : options) {
      absl::StrAppend(&page, ".TP\n\\fB", troff(names_text(*option)), "\\fR\\fI",
                      troff(value_text(*option)), "\\fR\n", troff(option->get_description()), "\n");
    }
  }
  absl::StrAppend(&page, ".SH EXAMPLES\n.nf\n",
                  troff(absl::StripPrefix(app.get_footer(), "Examples:\n")), "\n.fi\n");
  return page;
}

std::string bash_completion(const CLI::App& app) {
  std::vector<std::string> flags;
  std::string cases;
  for (const std::string& group : app.get_groups()) {
    for (const CLI::Option* option : visible_options(app, group)) {
      const std::string name = option->get_name(false, false);
      flags.push_back(name);
      if (value_text(*option).empty()) continue;
      const std::string words = completion_of(*option);
      absl::StrAppend(
          &cases, "    ", name, ")\n      ",
          words.empty() ? "COMPREPLY=()" : absl::StrCat("mapfile -t COMPREPLY < <(", words, ")"),
          " ;;\n");
    }
  }
  return absl::StrCat("_pbserve() {\n  local word=${COMP_WORDS[COMP_CWORD]}\n",
                      "  case ${COMP_WORDS[COMP_CWORD-1]} in\n", cases,
                      "    *)\n      mapfile -t COMPREPLY < <(compgen -W '",
                      absl::StrJoin(flags, " "), "' -- \"$word\") ;;\n  esac\n}\n",
                      "complete -F _pbserve pbserve\n");
}

}  // namespace pbserve::server
