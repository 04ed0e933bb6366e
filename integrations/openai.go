package integrations

import (
	"cmp"
	"context"
	"errors"
	"net/url"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// An OpenAI is a [Model] of OpenAI's API, or of one of the many servers that
// speak its chat completions. Nothing about it is taken from the environment.
type OpenAI struct {
	BaseURL string // with the version, as in https://llm.example.com/v1; "" means https://api.openai.com/v1
	APIKey  string
	Model   string
	Network Network
}

const openAIBase = "https://api.openai.com/v1"

// options returns how the SDK makes the exchange: once, by our own transport.
// They are for the SDK's single services: [openai.NewClient] reads the
// environment, and what it finds there cannot be told from what we say.
func (o OpenAI) options(x *exchange) ([]option.RequestOption, error) {
	if err := badKey(o.APIKey); err != nil {
		return nil, x.failure(err)
	}
	base, err := endpoint(cmp.Or(o.BaseURL, openAIBase), "/")
	if err != nil {
		return nil, x.failure(err)
	}
	return []option.RequestOption{
		option.WithBaseURL(base),
		option.WithAPIKey(o.APIKey),
		option.WithHTTPClient(x.client(o.Network.modelTimeout())),
		option.WithMaxRetries(0), // the jobs try again
	}, nil
}

// Check lists the models, which costs nothing and shows whether the key is good.
// Its error is a [Failure].
func (o OpenAI) Check(ctx context.Context) error {
	x := newExchange(o.Network, "OpenAI", o.APIKey)
	options, err := o.options(x)
	if err != nil {
		return err
	}
	models := openai.NewModelService(options...)
	if _, err := models.List(ctx); err != nil {
		return x.failure(err)
	}
	return nil
}

// Complete implements [Model].
func (o OpenAI) Complete(ctx context.Context, p Prompt) (Completion, error) {
	x := newExchange(o.Network, "OpenAI", o.APIKey)
	if err := p.check(); err != nil {
		return Completion{}, failure(Refused, "OpenAI", err)
	}
	options, err := o.options(x)
	if err != nil {
		return Completion{}, err
	}
	if p.ID != "" {
		options = append(options, option.WithHeader("Idempotency-Key", p.ID))
	}
	system, message := p.write(o.APIKey)
	params := openai.ChatCompletionNewParams{Model: o.Model}
	if system != "" {
		params.Messages = append(params.Messages, openai.SystemMessage(system))
	}
	params.Messages = append(params.Messages, openai.UserMessage(message))
	if o.own() {
		params.MaxCompletionTokens = openai.Int(p.tokens())
		params.Store = openai.Bool(false)
	} else {
		params.MaxTokens = openai.Int(p.tokens()) // what the other servers know
	}
	chat := openai.NewChatService(options...)
	answer, err := chat.Completions.New(ctx, params)
	if err != nil {
		return Completion{}, x.failure(err)
	}
	if len(answer.Choices) == 0 {
		return Completion{}, x.failure(errors.New("the answer holds no text"))
	}
	choice := answer.Choices[0]
	c := Completion{Text: choice.Message.Content, Model: cleanLine(answer.Model), InputTokens: answer.Usage.PromptTokens,
		OutputTokens: answer.Usage.CompletionTokens, Stop: StopEnd}
	switch {
	case choice.FinishReason == "content_filter", choice.Message.Refusal != "":
		c.Stop, c.Text = StopRefusal, cmp.Or(c.Text, choice.Message.Refusal)
	case choice.FinishReason == "length":
		c.Stop = StopLength
	}
	return c, nil
}

// own reports whether the server is OpenAI's own, whose newer models know the
// limit of tokens by another name.
func (o OpenAI) own() bool {
	u, err := url.Parse(cmp.Or(o.BaseURL, openAIBase))
	return err == nil && u.Hostname() == "api.openai.com"
}
