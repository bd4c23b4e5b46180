// The short codes that bots and people use most; an unknown one stays as it was typed.

const TABLE = `
white_check_mark ✅|heavy_check_mark ✔️|ballot_box_with_check ☑️|x ❌|negative_squared_cross_mark ❎|no_entry ⛔|no_entry_sign 🚫|octagonal_sign 🛑|warning ⚠️
rotating_light 🚨|information_source ℹ️|question ❓|exclamation ❗|bangbang ‼️|hourglass ⌛|hourglass_flowing_sand ⏳|clock1 🕐|alarm_clock ⏰|stopwatch ⏱️|timer_clock ⏲️
key 🔑|old_key 🗝️|lock 🔒|unlock 🔓|closed_lock_with_key 🔐|shield 🛡️|floppy_disk 💾|package 📦|file_cabinet 🗄️|card_file_box 🗃️|wastebasket 🗑️|open_file_folder 📂|file_folder 📁
page_facing_up 📄|memo 📝|pencil 📝|pencil2 ✏️|clipboard 📋|bar_chart 📊|chart_with_upwards_trend 📈|chart_with_downwards_trend 📉|calendar 📅|date 📅|pushpin 📌|link 🔗|paperclip 📎
mag 🔍|mag_right 🔎|bell 🔔|no_bell 🔕|mega 📣|loudspeaker 📢|speech_balloon 💬|thought_balloon 💭|eyes 👀|eye 👁️|wave 👋|raised_hands 🙌|raised_hand ✋|clap 👏|pray 🙏|muscle 💪|ok_hand 👌
+1 👍|thumbsup 👍|-1 👎|thumbsdown 👎|point_right 👉|point_left 👈|point_up ☝️|point_down 👇|handshake 🤝|tada 🎉|sparkles ✨|star ⭐|fire 🔥|boom 💥|zap ⚡|bulb 💡|rocket 🚀
gear ⚙️|wrench 🔧|hammer 🔨|hammer_and_wrench 🛠️|construction 🚧|broom 🧹|lady_beetle 🐞|bug 🐛|elephant 🐘|robot_face 🤖|ghost 👻|skull 💀|test_tube 🧪|microscope 🔬|dart 🎯|trophy 🏆
red_circle 🔴|large_red_circle 🔴|large_orange_circle 🟠|large_yellow_circle 🟡|large_green_circle 🟢|large_blue_circle 🔵|large_purple_circle 🟣|white_circle ⚪|black_circle ⚫
large_green_square 🟩|large_red_square 🟥|large_yellow_square 🟨|white_large_square ⬜|black_large_square ⬛|small_red_triangle 🔺|small_red_triangle_down 🔻|arrow_up ⬆️|arrow_down ⬇️
arrow_right ➡️|arrow_left ⬅️|arrows_counterclockwise 🔄|repeat 🔁|arrow_forward ▶️|black_square_for_stop ⏹️|double_vertical_bar ⏸️|fast_forward ⏩|rewind ⏪|recycle ♻️|heavy_plus_sign ➕|heavy_minus_sign ➖
smile 😄|smiley 😃|slightly_smiling_face 🙂|grinning 😀|grin 😁|joy 😂|wink 😉|blush 😊|heart_eyes 😍|thinking_face 🤔|sweat_smile 😅|sob 😭|cry 😢|confused 😕|neutral_face 😐|scream 😱|sunglasses 😎|heart ❤️|green_heart 💚
hand ✋|busts_in_silhouette 👥|bust_in_silhouette 👤|male-police-officer 👮|cop 👮|computer 💻|desktop_computer 🖥️|globe_with_meridians 🌐|satellite 🛰️|ambulance 🚑|fire_engine 🚒|coffee ☕|cake 🍰|snail 🐌|turtle 🐢
ledger 📒|books 📚|book 📖|scroll 📜|receipt 🧾|label 🏷️|bookmark 🔖|email 📧|envelope ✉️|inbox_tray 📥|outbox_tray 📤|telephone_receiver 📞|pager 📟|battery 🔋|electric_plug 🔌|thermometer 🌡️|droplet 💧|snowflake ❄️|sunny ☀️|cloud ☁️
one 1️⃣|two 2️⃣|three 3️⃣|four 4️⃣|five 5️⃣|keycap_ten 🔟|100 💯|new 🆕|ok 🆗|sos 🆘|stop_sign 🛑|checkered_flag 🏁|triangular_flag_on_post 🚩|crossed_swords ⚔️|scales ⚖️|put_litter_in_its_place 🚮|seedling 🌱|moneybag 💰
`;

const CODES = new Map(
  TABLE.trim()
    .split(/[|\n]/)
    .map((entry) => {
      const cut = entry.lastIndexOf(" ");
      return [entry.slice(0, cut), entry.slice(cut + 1)];
    }),
);

/** The character for `name`, or null. */
export const emoji = (name) => CODES.get(name) ?? null;
