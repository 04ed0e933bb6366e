package integrations

import (
	"cmp"
	"context"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

// An Anthropic is a [Model] of Anthropic's API. Nothing about it is taken from
// the environment.
type Anthropic struct {
	BaseURL string // "" means https://api.anthropic.com
	APIKey  string
	Model   string
	Network Network
}

// options returns how the SDK makes the exchange: once, by our own transport.
func (a Anthropic) options(x *exchange) ([]option.RequestOption, error) {
	if err := badKey(a.APIKey); err != nil {
		return nil, x.failure(err)
	}
	base, err := endpoint(cmp.Or(a.BaseURL, "https://api.anthropic.com"), "/")
	if err != nil {
		return nil, x.failure(err)
	}
	return []option.RequestOption{
		option.WithoutEnvironmentDefaults(),
		option.WithBaseURL(base),
		option.WithAPIKey(a.APIKey),
		option.WithHTTPClient(x.client(a.Network.modelTimeout())),
		option.WithMaxRetries(0), // the jobs try again
		option.WithoutOpenTelemetry(),
		option.WithOpenTelemetryPropagation(false),
	}, nil
}

// Check lists a model, which costs nothing and shows whether the key is good.
// Its error is a [Failure].
func (a Anthropic) Check(ctx context.Context) error {
	x := newExchange(a.Network, "Anthropic", a.APIKey)
	options, err := a.options(x)
	if err != nil {
		return err
	}
	client := anthropic.NewClient(options...)
	if _, err := client.Models.List(ctx, anthropic.ModelListParams{Limit: anthropic.Int(1)}); err != nil {
		return x.failure(err)
	}
	return nil
}

// Complete implements [Model].
func (a Anthropic) Complete(ctx context.Context, p Prompt) (Completion, error) {
	x := newExchange(a.Network, "Anthropic", a.APIKey)
	if err := p.check(); err != nil {
		return Completion{}, failure(Refused, "Anthropic", err)
	}
	options, err := a.options(x)
	if err != nil {
		return Completion{}, err
	}
	if p.ID != "" {
		options = append(options, option.WithHeader("Idempotency-Key", p.ID))
	}
	system, message := p.write(a.APIKey)
	params := anthropic.MessageNewParams{
		Model:     anthropic.Model(a.Model),
		MaxTokens: p.tokens(),
		Messages:  []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(message))},
	}
	if system != "" {
		params.System = []anthropic.TextBlockParam{{Text: system}}
	}
	client := anthropic.NewClient(options...)
	m, err := client.Messages.New(ctx, params)
	if err != nil {
		return Completion{}, x.failure(err)
	}
	var text strings.Builder
	for _, block := range m.Content {
		if block.Type == "text" {
			text.WriteString(block.Text)
		}
	}
	c := Completion{Text: text.String(), Model: cleanLine(string(m.Model)),
		InputTokens:  m.Usage.InputTokens + m.Usage.CacheCreationInputTokens + m.Usage.CacheReadInputTokens,
		OutputTokens: m.Usage.OutputTokens, Stop: StopEnd}
	switch m.StopReason {
	case anthropic.StopReasonMaxTokens, "model_context_window_exceeded":
		c.Stop = StopLength
	case anthropic.StopReasonRefusal:
		c.Stop = StopRefusal
	}
	return c, nil
}
