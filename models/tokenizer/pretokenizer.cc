#include "models/tokenizer/pretokenizer.h"

#include <optional>
#include <utility>

#include "models/message.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::models {
namespace {

// Walks the matches of a regex the way Oniguruma's iterator does: an empty match directly behind
// the previous match is skipped.
class MatchWalk {
 public:
  MatchWalk(const Regex& regex, std::string_view text, Regex::Matcher& matcher)
      : regex_(regex), text_(text), matcher_(matcher) {}

  absl::StatusOr<std::optional<Regex::Span>> next() {
    while (from_ <= text_.size()) {
      ASSIGN_OR_RETURN(const auto match, regex_.find(text_, from_, matcher_));
      if (!match) break;
      if (match->begin == match->end && match->end == last_end_) {
        from_ += from_ < text_.size() ? utf8_char_at(text_, from_).num_bytes : 1;
        continue;
      }
      from_ = match->end;
      last_end_ = match->end;
      return match;
    }
    return std::optional<Regex::Span>();
  }

 private:
  const Regex& regex_;
  std::string_view text_;
  Regex::Matcher& matcher_;
  size_t from_ = 0;
  size_t last_end_ = std::string_view::npos;  // of the last match
};

// Joins neighbouring segments as the behavior says and hands the result on.
class SegmentJoiner {
 public:
  using Sink = absl::FunctionRef<absl::Status(std::string_view)>;
  SegmentJoiner(SplitBehavior behavior, std::string_view text, Sink sink)
      : behavior_(behavior), text_(text), sink_(sink) {}

  absl::Status add(Regex::Span segment, bool is_match) {
    if (behavior_ == SplitBehavior::kRemoved && is_match) return absl::OkStatus();
    const bool joins = has_pending_ && joins_previous(is_match);
    previous_match_ = is_match;
    if (joins) {
      pending_.end = segment.end;
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(flush());
    pending_ = segment;
    has_pending_ = true;
    return absl::OkStatus();
  }

  absl::Status flush() {
    if (!has_pending_ || pending_.begin == pending_.end) return absl::OkStatus();
    return sink_(text_.substr(pending_.begin, pending_.end - pending_.begin));
  }

 private:
  bool joins_previous(bool is_match) const {
    switch (behavior_) {
      case SplitBehavior::kIsolated:
      case SplitBehavior::kRemoved:
        return false;
      case SplitBehavior::kMergedWithPrevious:
        return is_match && !previous_match_;
      case SplitBehavior::kMergedWithNext:
        return !is_match && previous_match_;
      case SplitBehavior::kContiguous:
        return is_match == previous_match_;
    }
    return false;
  }

  SplitBehavior behavior_;
  std::string_view text_;
  Sink sink_;
  Regex::Span pending_{0, 0};
  bool has_pending_ = false;
  bool previous_match_ = false;
};

absl::Status split_piece(const SplitStep& step, std::string_view piece, Regex::Matcher& matcher,
                         SegmentJoiner::Sink sink) {
  SegmentJoiner joiner(step.behavior, piece, sink);
  MatchWalk walk(step.regex, piece, matcher);
  size_t end = 0;
  while (true) {
    ASSIGN_OR_RETURN(const auto match, walk.next());
    if (!match) break;
    if (end != match->begin) RETURN_IF_ERROR(joiner.add({end, match->begin}, step.invert));
    RETURN_IF_ERROR(joiner.add(*match, !step.invert));
    end = match->end;
  }
  if (end != piece.size()) RETURN_IF_ERROR(joiner.add({end, piece.size()}, step.invert));
  return joiner.flush();
}

}  // namespace

absl::StatusOr<SplitStep> Pretokenizer::gpt2_split() {
  ASSIGN_OR_RETURN(
      Regex regex,
      Regex::compile(
          R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"));
  return SplitStep{std::move(regex), SplitBehavior::kIsolated, false};
}

absl::Status Pretokenizer::split(std::string_view text, Regex::Matcher& matcher,
                                 WordSink on_word) const {
  return text.empty() ? absl::OkStatus() : run(0, text, matcher, on_word);
}

absl::Status Pretokenizer::run(size_t step_idx, std::string_view piece, Regex::Matcher& matcher,
                               WordSink on_word) const {
  if (step_idx == steps_.size()) {
    on_word(piece);
    return absl::OkStatus();
  }
  const Step& step = steps_[step_idx];
  if (!step) {
    if (piece.starts_with(' ')) return run(step_idx + 1, piece, matcher, on_word);
    return run(step_idx + 1, message(" ", piece), matcher, on_word);
  }
  return split_piece(*step, piece, matcher, [&](std::string_view part) {
    return run(step_idx + 1, part, matcher, on_word);
  });
}

}  // namespace pbserve::models
