// The exponentials stand in the output's gradient buffer until the gradient replaces them. No fused multiply-add here:
// this file is compiled once for all processors, the kernels do what needs one.
#include "core/loss.h"

namespace tkt {
namespace {

// Sixteen samples of the output.
struct Group {
  const float *z;  // (classes, 16)
  float *e;        // likewise: exponentials, then the gradient
  uint32_t classes, first, samples;
  alignas(64) float maximum[kLanes], sum[kLanes], log_sum[kLanes];

  size_t at(uint32_t label, uint32_t lane) const { return size_t(label) * kLanes + lane; }
};

void run_softmax(tkt_trainer &trainer, uint32_t index, Group *group) {
  Buffer &output = trainer.output();
  const size_t offset = size_t(index) * output.elements * kLanes;
  const uint32_t first = index * kLanes, left = trainer.samples - first;
  group->z = output.data + offset;
  group->e = output.gradient + offset;
  group->classes = output.elements;
  group->first = first;
  group->samples = left < kLanes ? left : kLanes;
  trainer.kernels->softmax(group->z, group->classes, group->e, group->maximum, group->sum, group->log_sum);
}

// (p - [j = label]) / n in place of the exponentials; 0 in the lanes without a sample.
void write_gradient(Group &group, const int32_t *labels, float inverse_count) {
  float scale[kLanes] = {}, at_label[kLanes];
  for (uint32_t l = 0; l < group.samples; ++l) {
    scale[l] = inverse_count;
    at_label[l] = (group.e[group.at(uint32_t(labels[l]), l)] / group.sum[l] - 1.0f) * inverse_count;
  }
  for (uint32_t j = 0; j < group.classes; ++j) {
    float *e = group.e + group.at(j, 0);
    for (uint32_t l = 0; l < kLanes; ++l) e[l] = e[l] / group.sum[l] * scale[l];
  }
  for (uint32_t l = 0; l < group.samples; ++l) group.e[group.at(uint32_t(labels[l]), l)] = at_label[l];
}

uint32_t best_class(const Group &group, uint32_t lane) {
  uint32_t best = 0;
  for (uint32_t j = 1; j < group.classes; ++j) {
    if (group.z[group.at(j, lane)] > group.z[group.at(best, lane)]) best = j;
  }
  return best;
}

}  // namespace

double cross_entropy(tkt_trainer &trainer, const int32_t *labels, bool gradient) {
  const float inverse_count = 1.0f / float(trainer.samples);
  double total = 0;
  for (uint32_t g = 0; g < trainer.groups; ++g, labels += kLanes) {
    Group group;
    run_softmax(trainer, g, &group);
    for (uint32_t l = 0; l < group.samples; ++l) {
      float score = group.z[group.at(uint32_t(labels[l]), l)];
      total += double(group.log_sum[l] - (score - group.maximum[l]));
    }
    if (gradient) write_gradient(group, labels, inverse_count);
  }
  return total;
}

uint32_t count_correct(tkt_trainer &trainer, const int32_t *labels) {
  uint32_t correct = 0;
  for (uint32_t g = 0; g < trainer.groups; ++g, labels += kLanes) {
    Group group;
    run_softmax(trainer, g, &group);
    for (uint32_t l = 0; l < group.samples; ++l) correct += best_class(group, l) == uint32_t(labels[l]);
  }
  return correct;
}

bool write_probabilities(tkt_trainer &trainer, float *probabilities) {
  bool finite = true;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    Group group;
    run_softmax(trainer, g, &group);
    for (uint32_t l = 0; l < group.samples; ++l) {
      finite &= group.sum[l] - group.sum[l] == 0;
      float *row = probabilities + size_t(group.first + l) * group.classes;
      for (uint32_t j = 0; j < group.classes; ++j) row[j] = group.e[group.at(j, l)] / group.sum[l];
    }
  }
  return finite;
}

}  // namespace tkt
