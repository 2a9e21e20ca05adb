using System.Management.Automation.Host;

namespace FCtrans.Shell;

/// <summary>The terminal's size, and the little else that text needs. What only a Windows console has is refused.</summary>
internal sealed class ShellRawScreen : PSHostRawUserInterface
{
    private const int RedirectedColumns = 120;
    private const int RedirectedRows = 50;

    public int Columns
    {
        get
        {
            if (!Console.IsOutputRedirected && Console.WindowWidth > 0)
            {
                return Console.WindowWidth;
            }

            return int.TryParse(Environment.GetEnvironmentVariable("COLUMNS"), out int columns) && columns is > 0 and < 10_000 ? columns : RedirectedColumns;
        }
    }

    public override Size BufferSize
    {
        get => new(Columns, Rows);
        set { }
    }

    public override Size WindowSize
    {
        get => BufferSize;
        set { }
    }

    public override Size MaxWindowSize => BufferSize;

    public override Size MaxPhysicalWindowSize => BufferSize;

    public override ConsoleColor ForegroundColor { get; set; } = (ConsoleColor)(-1);

    public override ConsoleColor BackgroundColor { get; set; } = (ConsoleColor)(-1);

    public override int CursorSize
    {
        get => 100;
        set { }
    }

    public override Coordinates CursorPosition
    {
        get => Console.IsOutputRedirected ? default : new Coordinates(Console.CursorLeft, Console.CursorTop);
        set
        {
            if (!Console.IsOutputRedirected)
            {
                Console.SetCursorPosition(value.X, value.Y);
            }
        }
    }

    public override Coordinates WindowPosition
    {
        get => default;
        set { }
    }

    public override string WindowTitle { get; set; } = "";

    public override bool KeyAvailable => !Console.IsInputRedirected && Console.KeyAvailable;

    private static int Rows => !Console.IsOutputRedirected && Console.WindowHeight > 0 ? Console.WindowHeight : RedirectedRows;

    public override KeyInfo ReadKey(ReadKeyOptions options)
    {
        if (Console.IsInputRedirected)
        {
            throw new InvalidOperationException("A key can only be read from a terminal.");
        }

        ConsoleKeyInfo key = Console.ReadKey((options & ReadKeyOptions.NoEcho) != 0);
        ControlKeyStates state = 0;
        state |= (key.Modifiers & ConsoleModifiers.Alt) != 0 ? ControlKeyStates.LeftAltPressed : 0;
        state |= (key.Modifiers & ConsoleModifiers.Control) != 0 ? ControlKeyStates.LeftCtrlPressed : 0;
        state |= (key.Modifiers & ConsoleModifiers.Shift) != 0 ? ControlKeyStates.ShiftPressed : 0;
        return new KeyInfo((int)key.Key, key.KeyChar, state, keyDown: true);
    }

    public override void FlushInputBuffer()
    {
        while (KeyAvailable)
        {
            _ = Console.ReadKey(intercept: true);
        }
    }

    public override void SetBufferContents(Coordinates origin, BufferCell[,] contents) => throw NoBuffer();

    public override void SetBufferContents(Rectangle rectangle, BufferCell fill)
    {
        // Clear-Host fills the whole screen with blanks; nothing else is possible on a Unix terminal.
        if (rectangle is not { Left: -1, Right: -1 } || fill.Character != ' ')
        {
            throw NoBuffer();
        }

        if (!Console.IsOutputRedirected)
        {
            Console.Clear();
        }
    }

    public override BufferCell[,] GetBufferContents(Rectangle rectangle) => throw NoBuffer();

    public override void ScrollBufferContents(Rectangle source, Coordinates destination, Rectangle clip, BufferCell fill) => throw NoBuffer();

    private static PlatformNotSupportedException NoBuffer() => new("A Unix terminal's contents can't be read or moved.");
}
